r"""Our operators in a model of torch that is already there
==========================================================

One call lets the operators of this package compute those layers of a torch model that they serve. Parameters, names,
hooks and checkpoints stay as they are; the report says what was changed, what was not, and why.
"""

# %%
# A small model as one meets them: an encoder that remembers its maxima, dilated convolutions, a decoder.
import copy

import torch
from skimage.data import astronaut
from skimage.transform import downscale_local_mean
from torch import nn

import cv3gpu
from cv3gpu import viz


class Model(nn.Module):
    """An encoder, a context of dilated layers and a decoder."""

    def __init__(self):
        """Makes the layers."""
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, padding=3), nn.BatchNorm2d(16), nn.ReLU())
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.context = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=4, dilation=4),
            nn.ReLU(),
        )
        self.wrapped = nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular")
        self.up = nn.ConvTranspose2d(16, 16, 4, stride=2, padding=1)
        self.large = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.head = nn.Conv2d(32, 6, 1)

    def forward(self, x):
        """Logits at the size of the image."""
        x = self.stem(x)
        small, indices = self.pool(x)
        deep = self.wrapped(self.context(small))
        return self.head(torch.cat([self.unpool(deep, indices) + self.up(deep), self.large(small)], 1))


torch.manual_seed(2)
model = Model().eval()
image = downscale_local_mean(astronaut()[:384, :384], (2, 2, 1)) / 255
x = torch.from_numpy(image).permute(2, 0, 1)[None].float() * 4 - 2
with torch.inference_mode():
    before = model(x)
names, kept = list(model.state_dict()), {name: value.clone() for name, value in model.state_dict().items()}

# %%
# The call, and its report. The last layer is left to torch on request.
report = cv3gpu.nn.drop_in(model, exclude="head")
print(report)

# %%
# The logits are those of torch up to rounding, no label differs, and the checkpoint is the same.
with torch.inference_mode():
    after = model(x)
difference = float((after - before).abs().max())
print(f"logits differ by at most {difference:.1e}, of {float(before.abs().max()):.1f}")
assert difference < 1e-5
assert torch.equal(after.argmax(1), before.argmax(1))
assert list(model.state_dict()) == names
assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
replaced = {row.name for row in report.replaced}
assert {"stem.0", "pool", "unpool", "context.0", "context.2", "up", "large"} <= replaced
assert [row.name for row in report.skipped] == ["head"]

# %%
# A copy is served as well, and it trains: gradients pass through our operators.
trained = copy.deepcopy(model).train()
torch.nn.functional.cross_entropy(trained(x), before.argmax(1)).backward()
assert trained.stem[0].weight.grad.abs().max() > 0

labels = [logits.argmax(1)[0].numpy() for logits in (before, after)]
figure = viz.labels_figure(
    image,
    {"image": None, "torch": labels[0], "after drop_in": labels[1]},
    names=[f"class {k}" for k in range(6)],
    size=3.2,
)

# %%
# And back.
report.undo()
with torch.inference_mode():
    assert torch.equal(model(x), before)
assert type(model.pool) is nn.MaxPool2d

"use strict";
// A page works without this script: every picture is then shown, one below the other.
document.documentElement.classList.add("live");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// One picture of several: a slider, arrow keys, and where there is a button, playing.
for (const widget of all(".steps")) {
  const figures = all("figure", widget), range = widget.querySelector("input"), output = widget.querySelector("output");
  const button = widget.querySelector("button");
  let timer = null;
  const show = () => {
    const at = Number(range.value), label = figures[at].querySelector("figcaption").textContent;
    figures.forEach((figure, k) => figure.classList.toggle("shown", k === at));
    output.textContent = label;
    range.setAttribute("aria-valuetext", label);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  range.addEventListener("input", () => {
    if (timer !== null) stop();
    show();
  });
  if (button) {
    button.addEventListener("click", () => {
      if (timer !== null) return stop();
      if (Number(range.value) === figures.length - 1) range.value = 0;
      show();
      button.textContent = "Pause";
      timer = setInterval(() => {
        range.value = (Number(range.value) + 1) % figures.length;
        show();
      }, 1000 / Number(widget.dataset.fps));
    });
  }
  show();
}

// One picture over another, whose edge follows the pointer or the slider.
for (const widget of all(".swipe")) {
  const sheet = widget.querySelector(".sheet"), edge = widget.querySelector(".edge");
  const range = widget.querySelector("input"), over = all("figure", widget)[1];
  const names = all("figcaption", widget).map((caption) => caption.textContent);
  const show = () => {
    const share = Number(range.value);
    over.style.clipPath = `inset(0 0 0 ${share}%)`;
    edge.style.left = `${share}%`;
    range.setAttribute("aria-valuetext", `${share} % ${names[0]}, ${100 - share} % ${names[1]}`);
  };
  const follow = (event) => {
    const box = sheet.getBoundingClientRect();
    range.value = Math.round((100 * (event.clientX - box.left)) / box.width);
    show();
  };
  range.addEventListener("input", show);
  sheet.addEventListener("dragstart", (event) => event.preventDefault());
  sheet.addEventListener("pointerdown", (event) => {
    sheet.setPointerCapture(event.pointerId);
    follow(event);
  });
  sheet.addEventListener("pointermove", (event) => {
    if (event.buttons) follow(event);
  });
  show();
}

// Pictures that a click enlarges; arrow keys go on to the next.
for (const widget of all(".gallery")) {
  const dialog = widget.querySelector("dialog"), large = dialog.querySelector("img"), words = dialog.querySelector("p");
  const [back, on, close] = all("button", dialog), buttons = all(".montage button", widget);
  let at = 0;
  const show = (k) => {
    at = (k + buttons.length) % buttons.length;
    const small = buttons[at].querySelector("img");
    large.src = small.src;
    large.alt = small.alt;
    large.className = small.className;
    words.textContent = buttons[at].querySelector("span").textContent;
  };
  buttons.forEach((button, k) => button.addEventListener("click", () => {
    show(k);
    dialog.showModal();
  }));
  back.addEventListener("click", () => show(at - 1));
  on.addEventListener("click", () => show(at + 1));
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(at - 1);
    if (event.key === "ArrowRight") show(at + 1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => buttons[at].focus());
}

// Tables, sorted by a click on a heading: first from the largest number, or from the first word.
for (const table of all("table")) {
  const headings = all("thead th", table), body = table.tBodies[0];
  headings.forEach((heading, k) => heading.querySelector("button").addEventListener("click", () => {
    const numeric = heading.classList.contains("number"), before = heading.getAttribute("aria-sort");
    const first = numeric ? "descending" : "ascending", other = numeric ? "ascending" : "descending";
    const order = before === first ? other : first, sign = order === "ascending" ? 1 : -1;
    const key = (row) => (numeric ? Number(row.cells[k].dataset.value ?? NaN) : row.cells[k].textContent);
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
      return Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || 0;  // what is no number stands last
    });
    headings.forEach((h) => h.setAttribute("aria-sort", h === heading ? order : "none"));
    body.append(...rows.map(([, row]) => row));
  }));
}

// Draws each figure when it comes near the screen, in the colours that the style sheet has for light or dark.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  const drawn = new Set();
  const places = [...document.querySelectorAll("[data-figure]")];

  const coloured = (text) => {
    const style = getComputedStyle(document.documentElement);
    const isColour = (value) => typeof value === "string" && value.startsWith("var(--");
    return JSON.parse(text, (_, value) => (isColour(value) ? style.getPropertyValue(value.slice(4, -1)).trim() : value));
  };

  const draw = (place) => {
    drawn.add(place);
    const figure = coloured(document.getElementById(place.dataset.figure).textContent);
    const narrow = place.clientWidth < 480;
    if (narrow) {
      figure.layout.margin = { ...figure.layout.margin, l: 44, r: 8 };
      figure.layout.font.size = 11;
    }
    if (coarse.matches) figure.layout.dragmode = false; // so that a finger scrolls the page
    Plotly.react(place, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: narrow ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d"],
    });
  };

  // What is in sight comes first; the rest one by one when the browser has nothing else to do.
  const idle = globalThis.requestIdleCallback ?? ((callback) => setTimeout(callback, 200));
  const drawRest = () => {
    const next = places.find((place) => !drawn.has(place));
    if (!next) return;
    draw(next);
    idle(drawRest);
  };
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting && !drawn.has(entry.target)).forEach((entry) => draw(entry.target)),
    { rootMargin: "300px" },
  );
  places.forEach((place) => near.observe(place));
  idle(drawRest);
  dark.addEventListener("change", () => [...drawn].forEach(draw));
  addEventListener("beforeprint", () => places.forEach(draw));
})();

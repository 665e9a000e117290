"use strict";
// Shows one frame at a time, chosen by hand or in turn. Without a script, and in print, all frames stand side by side.
(function () {
  const film = document.getElementById("film"), slider = document.getElementById("phase");
  const button = document.getElementById("play"), shown = document.getElementById("shown");
  const frames = Array.from(film.querySelectorAll("figure"));
  let timer = null;
  function show(number) {
    frames.forEach((frame, n) => frame.classList.toggle("now", n === number));
    slider.value = String(number);
    shown.textContent = frames[number].querySelector("figcaption").textContent;
  }
  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => show((Number(slider.value) + 1) % frames.length), 400) : null;
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Pause" : "Play";
  }
  slider.addEventListener("input", function () { play(false); show(Number(slider.value)); });
  button.addEventListener("click", () => play(timer === null));
  film.classList.add("running");
  show(0);
  play(frames.length > 1 && !matchMedia("(prefers-reduced-motion: reduce)").matches);
  document.body.dataset.ready = "true";
})();

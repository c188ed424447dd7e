(() => {
  const board = document.getElementById("leaderboard"), form = board.querySelector("form");
  const body = board.querySelector("tbody"), sliders = [...form.querySelectorAll("input[type=range]")];
  const models = JSON.parse(board.querySelector("script[type='application/json']").textContent);
  models.forEach((model, place) => { model.row = body.rows[place]; });

  function show() {
    const weights = sliders.map(slider => slider.disabled ? 0 : Number(slider.value));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (const model of models) {
      const parts = model.shares.map((share, place) => total ? weights[place] * (share ?? 0) / total : 0);
      model.score = parts.reduce((sum, part) => sum + part, 0);
      model.row.querySelector("data").textContent = model.score.toFixed(2);
      model.row.querySelector("data").value = model.score.toFixed(6);
      const bars = [...model.row.querySelector(".bar").children];
      bars.forEach((bar, place) => { bar.style.width = 100 * parts[place] + "%"; });
      model.row.hidden = form.elements.hide.checked && !model.serves;
    }
    const ranked = [...models].sort((a, b) => b.score - a.score);   // stable: equals stay as they were
    body.append(...ranked.map(model => model.row));
    sliders.forEach(slider => { slider.nextElementSibling.value = slider.value; });
    const first = ranked.find(model => !model.row.hidden);
    board.querySelector("[role=status]").textContent = !total ? "No weight is above 0: no order."
      : !first ? "No model may serve."
      : `First under these weights: ${first.name}, ${first.score.toFixed(2)}${first.serves ? "" : " (may not serve)"}.`;
  }

  function read() {                                                 // the view that the address holds
    const view = new URLSearchParams(location.hash.slice(1));
    for (const slider of sliders) {
      const asked = view.get(slider.name);
      slider.value = asked === null || asked === "" || isNaN(asked) ? slider.defaultValue : asked;
    }
    form.elements.hide.checked = view.get("hide") === "1";
    show();
  }

  function write() {
    const view = new URLSearchParams(sliders.map(slider => [slider.name, slider.value]));
    if (form.elements.hide.checked) view.set("hide", "1");
    history.replaceState(null, "", "#" + view);
    show();
  }

  form.addEventListener("input", write);
  form.addEventListener("reset", event => {
    event.preventDefault();
    history.replaceState(null, "", location.pathname + location.search);
    read();
  });
  form.addEventListener("submit", event => event.preventDefault());
  addEventListener("hashchange", read);
  form.hidden = false;
  read();
})();

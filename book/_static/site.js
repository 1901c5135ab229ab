// The two buttons whose handlers the theme writes into attributes, where the pages' policy allows none.
document.addEventListener("click", (event) => {
  const does = event.target.closest("[data-does]")?.dataset.does;
  if (does === "print") window.print();
  if (does === "full-screen") toggleFullScreen();
});

// Menu and contents. The theme opens them, in a dialog where the window is narrow, and hides the menu of a wide one; the keyboard's
// focus, which it drops, goes into what opens and back to its button.
const wide = matchMedia("(min-width: 992px)");
for (const name of ["primary", "secondary"]) {
  const button = document.querySelector(`.${name}-toggle`);
  const side = document.getElementById(`pst-${name}-sidebar`), dialog = document.getElementById(`pst-${name}-sidebar-modal`);
  if (!button || !side || !dialog) continue;
  const beside = () => wide.matches && !side.classList.contains("pst-sidebar-hidden");
  const settle = () => {
    const open = dialog.open || beside();
    button.ariaExpanded = open;
    (open ? (dialog.open ? dialog : side).querySelector("a, button") : button).focus({preventScroll: true});
  };
  button.ariaExpanded = beside();
  // The theme lets no other listener of the button hear of a click in a wide window.
  document.addEventListener("click", (event) => { if (button.contains(event.target)) setTimeout(settle); }, true);
  dialog.addEventListener("click", (event) => { if (event.target.closest("a[href^='#']")) dialog.close("followed"); });
  dialog.addEventListener("close", () => {
    button.ariaExpanded = false;
    if (dialog.returnValue !== "followed") setTimeout(() => button.focus({preventScroll: true}));
    dialog.returnValue = "";
  });
  side.addEventListener("keydown", (event) => { if (event.key === "Escape" && button.checkVisibility()) button.click(); });
}

// A box that scrolls can be reached with the keyboard.
for (const box of document.querySelectorAll(".table-box")) {
  if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}

// A result of the search opens at the section that has most of the words that were sought. Sphinx fetches each page for the summary that it
// puts behind the link; formulas stand in a page twice, for the eye and for the ear.
document.addEventListener("DOMContentLoaded", () => {  // when every script has run
  if (typeof Search === "undefined") return;
  const summarise = Search.makeSearchSummary;
  Search.makeSearchSummary = (text, words, anchor) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    for (const twice of page.querySelectorAll(".katex-html, annotation, .chapters")) twice.remove();
    const summary = summarise(page.documentElement.outerHTML, words, anchor);
    const sections = [...page.querySelectorAll("article section[id]")];
    const own = (section) => [...section.children].filter((child) => child.tagName !== "SECTION").map((child) => child.textContent).join(" ");
    const counts = sections.map((section) => [...words].filter((word) => own(section).toLowerCase().includes(word)).length);
    const best = counts.indexOf(Math.max(...counts));
    if (summary && !anchor && best > 0) queueMicrotask(() => {
      const link = summary.parentElement?.querySelector("a");
      if (link) link.hash = sections[best].id;
    });
    return summary;
  };
});

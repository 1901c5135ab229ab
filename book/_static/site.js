// The two buttons whose handlers the theme writes into attributes, where the pages' policy allows none.
document.addEventListener("click", (event) => {
  const does = event.target.closest("[data-does]")?.dataset.does;
  if (does === "print") window.print();
  if (does === "full-screen") toggleFullScreen();
});

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

// Cards: what a link of the text leads to (a reference, a term, an equation, a figure, an exercise, a function), shown beside it. A mouse
// that rests on the link opens its card, so does the keyboard's focus, and a finger's first tap. Other pages are fetched once, of this site
// alone; where that is impossible, as in files without a server, nothing shows.
const article = document.querySelector("article.bd-article");
const here = location.href.split("#")[0], pages = new Map([[here, Promise.resolve(document)]]);
const pageOf = (url) => {
  const address = url.href.split("#")[0];
  if (!pages.has(address)) {
    pages.set(address, fetch(address).then((reply) => reply.text()).then((text) => new DOMParser().parseFromString(text, "text/html")));
  }
  return pages.get(address);
};
const SHOWN = "div.citation, dt, div.math, figure, .exercise";
const cardOf = (target) => {
  const next = target?.nextElementSibling;
  const parts = [target?.closest(SHOWN) ?? (next?.matches(SHOWN) ? next : undefined)].filter(Boolean);
  for (let after = parts[0]; after?.matches("dt"); parts[1] = after) after = after.nextElementSibling;  // a term's definition
  return parts.filter(Boolean).map((part) => part.cloneNode(true));
};
const card = document.createElement("div");
card.id = "link-card";
card.hidden = true;
card.setAttribute("role", "tooltip");
article?.append(card);
let cardLink, cardTimer, wanted;  // wanted: the link whose page is being fetched

const closeCard = () => {
  clearTimeout(cardTimer);
  cardLink?.removeAttribute("aria-describedby");
  cardLink = wanted = undefined;
  card.hidden = true;
};

const openCard = async (link) => {  // whether there was something to show
  wanted = link;
  const url = new URL(link.href), page = await pageOf(url).catch(() => undefined);
  if (wanted !== link) return true;  // the reader is elsewhere by now
  const parts = cardOf(page?.getElementById(decodeURIComponent(url.hash.slice(1))));
  if (!parts.length) return false;
  for (const part of parts) {
    for (const tag of [part, ...part.querySelectorAll("[id]")]) tag.removeAttribute("id");
    for (const tag of part.querySelectorAll(".headerlink, .enlarge, .back, .kdas-explore > :not(:has(img)), [hidden], script, .cited-in")) tag.remove();
    for (const [name, tags] of [["src", "img"], ["href", "a"]]) {
      for (const tag of part.querySelectorAll(`${tags}[${name}]`)) tag[name] = new URL(tag.getAttribute(name), url);
    }
    for (const image of part.querySelectorAll("img")) image.loading = "eager";
  }
  const style = page.querySelector('link[href*="katex.min.css"]');  // which a page without formulas lacks
  if (style && parts.some((part) => part.querySelector(".katex")) && !document.querySelector('link[href*="katex.min.css"]')) {
    document.head.append(Object.assign(document.createElement("link"), {rel: "stylesheet", href: new URL(style.getAttribute("href"), url)}));
  }
  closeCard();
  cardLink = link;
  link.setAttribute("aria-describedby", card.id);
  const go = Object.assign(document.createElement("a"), {className: "go", href: link.href, textContent: "Go there"});
  card.replaceChildren(...parts, go);
  card.hidden = false;
  const place = link.getClientRects()[0], origin = article.getBoundingClientRect(), edge = document.documentElement;
  const [width, height] = [card.offsetWidth, card.offsetHeight];
  const below = place.bottom + height + 12 < edge.clientHeight || place.top < height + 12;
  card.style.left = `${Math.max(8, Math.min(place.left, edge.clientWidth - width - 8)) - origin.left}px`;
  card.style.top = `${(below ? place.bottom + 4 : place.top - height - 4) - origin.top}px`;
  return true;
};

const linkAt = (event) => {
  const link = event.target.closest?.('article a[href*="#"]:not(.headerlink, .go)');
  return link && !card.contains(link) && link.host === location.host && link.hash.length > 1 ? link : undefined;
};
let pointer = "mouse";
document.addEventListener("pointerdown", (event) => { pointer = event.pointerType; }, true);
document.addEventListener("keydown", (event) => {
  pointer = "keyboard";
  if (event.key === "Escape") closeCard();
});
document.addEventListener("pointerover", (event) => {
  if (event.pointerType === "touch") return;
  const link = linkAt(event);
  if (card.contains(event.target) || (link && link === cardLink)) return clearTimeout(cardTimer);
  clearTimeout(cardTimer);
  cardTimer = setTimeout(() => (link ? openCard(link) : closeCard()), link ? 250 : 300);
});
document.addEventListener("focusin", (event) => {
  if (card.contains(event.target) || pointer !== "keyboard") return;
  const link = linkAt(event);
  link ? openCard(link) : closeCard();
});

// A followed link within the page leaves a way back to where the reader was; the keyboard's next stop is that way.
const back = Object.assign(document.createElement("button"), {className: "back", type: "button", textContent: "↩ Back to where you were"});
const trail = [];
back.addEventListener("click", () => {
  const {link, y} = trail.pop();
  if (!trail.length) back.remove();
  scrollTo({top: y, behavior: "instant"});
  link.focus({preventScroll: true});
  closeCard();
});
document.addEventListener("click", async (event) => {
  const link = event.target.closest?.("#link-card .go") ? cardLink : linkAt(event);
  if (!link) return event.target.closest?.("#link-card") || closeCard();
  if (pointer === "touch" && link !== cardLink && event.isTrusted) {
    event.preventDefault();
    if (!(await openCard(link))) link.click();
    return;
  }
  closeCard();
  const target = link.href.split("#")[0] === here && document.getElementById(decodeURIComponent(link.hash.slice(1)));
  if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
  trail.push({link, y: scrollY});
  target.prepend(back);
});

document.addEventListener("scrollend", () => {  // who has read on has no need of it
  if (!back.isConnected || Math.abs(back.parentNode.getBoundingClientRect().top) < 1.5 * innerHeight) return;
  back.remove();
  trail.length = 0;
});

// Under a "Predict" box the cells that answer, and the paragraph that reads them, wait until they are asked for: by its button, by a link
// into them, or by a search in the page. Without this script, and on paper, they are there.
for (const title of document.querySelectorAll("article .admonition > .admonition-title")) {
  if (!title.textContent.startsWith("Predict before you run")) continue;
  const box = title.parentElement, answer = [];
  let next = box.nextElementSibling;
  for (; next?.matches(".cell"); next = next.nextElementSibling) answer.push(next);
  if (!answer.length) continue;
  if (next?.matches("p")) answer.push(next);
  const button = Object.assign(document.createElement("button"), {className: "reveal", type: "button", textContent: "Show the answer"});
  const reveal = () => {
    for (const part of answer) part.removeAttribute("hidden");
    for (const box of answer.flatMap((part) => [...part.querySelectorAll("pre, .table-box")])) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;  // not to be seen when the page was loaded
    }
    button.remove();
  };
  for (const part of answer) {
    part.setAttribute("hidden", "until-found");
    part.addEventListener("beforematch", reveal);
  }
  button.addEventListener("click", () => {
    reveal();
    answer[0].tabIndex = -1;
    answer[0].focus({preventScroll: true});
  });
  box.append(button);
}
const revealTarget = () => {  // what a link leads to, where the browser does not show it by itself
  const target = document.querySelector("[hidden=until-found] :target, [hidden=until-found]:target");
  target?.closest("[hidden]").dispatchEvent(new Event("beforematch"));
  target?.scrollIntoView();
};
addEventListener("hashchange", revealTarget);
revealTarget();

// A picture of a figure opens at its full size, by a click or by its button.
const large = document.createElement("dialog");
large.className = "large";
large.ariaLabel = "The picture at its full size";
document.body.append(large);
large.addEventListener("click", () => large.close());
for (const picture of document.querySelectorAll("article :is(figure, .cell_output) img:not(a img, .kdas-live img, [hidden])")) {
  const slider = picture.closest(".kdas-explore > div"), box = slider ?? document.createElement("span");  // a slider shows another one later
  if (!slider) {
    picture.replaceWith(box);
    box.append(picture);
  }
  const button = Object.assign(document.createElement("button"), {className: "enlarge", type: "button", textContent: "⤢", title: "Enlarge"});
  button.ariaLabel = `Enlarge: ${picture.alt}`;
  box.append(button);
  box.classList.add("enlarges");
  const measure = () => box.classList.toggle("wide", picture.naturalWidth > 600);  // a chart, not a drawing for telephones
  picture.complete ? measure() : picture.addEventListener("load", measure);
  box.addEventListener("click", (event) => {
    const shown = box.querySelector("img:not([hidden])");
    if (!event.target.closest("img, .enlarge")) return;
    const close = Object.assign(document.createElement("button"), {type: "button", className: "close", textContent: "Close"});
    large.replaceChildren(close, Object.assign(new Image(), {src: shown.src, alt: shown.alt}));
    large.showModal();
  });
}

// What is measured on a page, as functions that give lists of faults. Read by tests/browser/chromium.py.
(() => {
  const checks = {};
  const words = (node) => `${node.tagName.toLowerCase()}.${node.getAttribute("class") || ""}: ${node.textContent.trim().slice(0, 40)}`;

  checks.open = () => document.querySelectorAll("details").forEach((part) => (part.open = true));

  checks.overflow = () => {
    const root = document.documentElement;
    if (root.scrollWidth <= root.clientWidth) return [];
    const out = [...document.body.querySelectorAll("*")].filter((node) => node.getBoundingClientRect().right > root.clientWidth + 1);
    return [`${root.scrollWidth} > ${root.clientWidth}`, ...out.slice(0, 5).map(words)];
  };

  // On paper nothing scrolls: what is wider than its box is lost.
  checks.clipped = () =>
    [...document.querySelectorAll(".scroll, .drawing, pre, dl, p, h1, h2")]
      .filter((node) => node.scrollWidth > node.clientWidth + 1)
      .map((node) => `${node.scrollWidth} > ${node.clientWidth} ${words(node)}`);

  checks.hidden = () =>
    [...document.querySelectorAll("details > :not(summary)")].filter((node) => !node.checkVisibility()).map(words);

  const colour = (text) => {
    const values = text.match(/[\d.]+(e-?\d+)?/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    return [...values.slice(0, 3).map((value) => value * scale), values.length > 3 ? values[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map((k) => top[k] * top[3] + below[k] * (1 - top[3])).concat(1);
  const light = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      if (style.backgroundColor && !(at instanceof SVGElement)) layers.push(colour(style.backgroundColor));
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const shine = (node) => {
    let all = 1;
    for (let at = node; at; at = at.parentElement) all *= Number(getComputedStyle(at).opacity);
    return all;
  };

  checks.contrast = (least) => {
    const faults = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    checks.measured = 0;
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      const box = node.getBoundingClientRect();
      if (!walker.currentNode.data.trim() || !box.width || !box.height || !node.checkVisibility()) continue;
      const style = getComputedStyle(node);
      const ink = colour(node instanceof SVGElement ? style.fill : style.color);
      ink[3] *= shine(node);
      const below = ground(node);
      const [high, low] = [light(over(ink, below)), light(below)].sort((a, b) => b - a);
      const ratio = (high + 0.05) / (low + 0.05);
      checks.measured += 1;
      if (ratio < least) faults.push(`${ratio.toFixed(2)} ${words(node)}`);
    }
    return faults;
  };

  checks.paper = () => ground(document.body);

  // A box that scrolls must be reachable by the keyboard, and say what it is.
  checks.unreachable = () =>
    [...document.querySelectorAll("*")]
      .filter((node) => /auto|scroll/.test(getComputedStyle(node).overflowX) && node.scrollWidth > node.clientWidth)
      .filter((node) => node.tabIndex < 0 || node.getAttribute("role") !== "region" || !node.getAttribute("aria-label"))
      .map(words);

  // The first box that is seen and wider than its place.
  checks.wide = () =>
    [...document.querySelectorAll(".scroll, .drawing")].find((node) => node.checkVisibility() && node.scrollWidth > node.clientWidth);

  checks.stops = () =>
    [...document.querySelectorAll("a[href], summary, select, [tabindex='0']")].filter((node) => node.checkVisibility()).length;

  // Where the focus is: its place among all elements, and whether its ring is seen.
  checks.focus = () => {
    const node = document.activeElement;
    const style = getComputedStyle(node);
    const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
    return node === document.body ? null : [[...document.querySelectorAll("*")].indexOf(node), ring, words(node)];
  };

  checks.wordless = () => {
    const images = [...document.querySelectorAll("img")].filter((node) => !node.getAttribute("alt"));
    const drawings = [...document.querySelectorAll("svg")].filter((node) => {
      const named = node.closest("[role=img]");
      return !named || (named.getAttribute("aria-label") || "").length < 20;
    });
    return [...images, ...drawings].map(words);
  };

  checks.headings = () => {
    const levels = [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].map((node) => Number(node.tagName[1]));
    const faults = levels.filter((level) => level === 1).length === 1 && levels[0] === 1 ? [] : ["not one h1, first of all"];
    levels.forEach((level, k) => k && level > levels[k - 1] + 1 && faults.push(`h${level} after h${levels[k - 1]}`));
    return faults;
  };

  const count = (from) => {
    const found = {};
    from.querySelectorAll("*").forEach((node) => (found[node.tagName] = (found[node.tagName] || 0) + 1));
    return found;
  };
  checks.elements = () => count(document);
  checks.parse = (page) => count(new DOMParser().parseFromString(page, "text/html"));

  window.checks = checks;
  return true;
})();

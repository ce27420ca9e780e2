// Elements without a framework: text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.setAttribute("class", value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}

/** An element of the page: `h("a", {href}, "text", child)`. */
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

/** The same for drawings. */
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** Puts these children in place of what is there. */
export function show(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
}

/** Sets a text only when it differs, so that readers of the screen are not told twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const PATIENCE_MS = 500;

/**
 * Runs `draw` once before the next picture, however often it is asked for. A page that nobody sees is asked for no picture; it
 * is drawn now and then, so that it is right when it is looked at.
 */
export function coalesced(draw) {
  let frame = null;
  let timer = null;
  const go = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    frame = timer = null;
    draw();
  };
  return () => {
    if (frame !== null) return;
    frame = requestAnimationFrame(go);
    timer = setTimeout(go, PATIENCE_MS);
  };
}

/** The value of a colour of the style sheet. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Something that others listen to. */
export function topic() {
  const heard = new Set();
  return {
    on(listener) {
      heard.add(listener);
      return () => heard.delete(listener);
    },
    tell: (value) => heard.forEach((listener) => listener(value)),
  };
}

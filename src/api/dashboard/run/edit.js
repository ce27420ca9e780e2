// A text that is edited in place. What is typed is never lost: not by an answer that arrives meanwhile, nor by a change that fails.

import { h, say, show } from "../base/dom.js";
import { get } from "../base/api.js";
import { edit } from "../runs/actions.js";

const PENCIL = "Edit";
/** The author of a change without a token. */
const ANONYMOUS = "http";

/**
 * The field `name` ("notes") of a run. `read(run)` gives its text, `shown(run)` what is to be seen instead while nothing is typed;
 * `field` is the change of `PATCH` that saves it, and `initial(run)` what a person begins with. With `lines` it has several; then Enter with Ctrl or Cmd saves.
 */
export class EditedText {
  constructor({ runId, name, field, read, initial = read, shown = read, lines = false, hint = () => "", view = h("span", {}) }) {
    Object.assign(this, { runId, name, field, read, initial, shown, lines, hint, view, run: null, base: null, saving: null });
    this.begin = h("button", { type: "button", class: "ghost small", "data-needs": "admin", "aria-label": `${PENCIL} ${name}`, onclick: () => this.open() }, PENCIL);
    this.problem = h("p", { class: "problem", role: "alert" });
    this.input = h(lines ? "textarea" : "input", { type: lines ? null : "text", rows: lines ? 4 : null, "aria-label": name, onkeydown: (event) => this.key(event), oninput: () => this.grow() });
    this.tip = h("small", { class: "hint" });
    const save = h("button", { type: "button", class: "strong small", onclick: () => this.save() }, "Save");
    const cancel = h("button", { type: "button", class: "ghost small", onclick: () => this.leave() }, "Cancel");
    this.form = h("div", { class: "edit-form", hidden: true }, this.input, this.tip, this.problem, h("div", { class: "bar" }, save, cancel));
    this.still = h("div", { class: "edit-still" }, this.view, this.begin);
    this.box = h("div", { class: "edited", "data-edit": name }, this.still, this.form);
  }

  /** Shows the run as it is now. A draft stays; that the text was changed by somebody else is said. */
  set(run) {
    this.run = run;
    if (this.saving === null) this.showText(this.shown(run));
    if (this.base !== null && this.read(run) !== this.base) this.collide(run);
  }

  showText(text) {
    say(this.view, text);
    this.box.classList.toggle("blank", !text);
    say(this.begin, text || !this.lines ? PENCIL : `Add ${this.name}`);
  }

  open() {
    if (!this.run) return;
    this.base = this.read(this.run);
    this.collided = false;
    this.begun = this.initial(this.run);
    this.input.value = this.begun;
    say(this.problem, "");
    this.swap(true);
    this.input.select();
  }

  swap(open) {
    [this.form.hidden, this.still.hidden] = [!open, open];
    if (!open) return;
    say(this.tip, [this.lines ? "Ctrl+Enter saves, Escape leaves." : "Enter saves, Escape leaves.", this.hint(this.run)].filter(Boolean).join(" "));
    this.grow();
    this.input.focus();
  }

  grow() {
    if (!this.lines) return;
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight + 4, 420)}px`;
  }

  key(event) {
    if (event.isComposing) return;
    event.stopPropagation();
    if (event.key === "Escape") this.leave();
    else if (event.key === "Enter" && (!this.lines || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.save();
    }
  }

  leave() {
    this.base = null;
    this.swap(false);
    this.begin.focus();
  }

  /** Somebody else has changed the text that is being edited. */
  collide(run) {
    const theirs = this.read(run);
    this.base = theirs;
    this.collided = true;
    const who = run.edited_by && run.edited_by !== ANONYMOUS ? `${run.edited_by} has` : "Somebody has";
    const words = theirs ? `changed the ${this.name} meanwhile, to “${theirs.length > 300 ? `${theirs.slice(0, 300)}…` : theirs}”` : `cleared the ${this.name} meanwhile`;
    say(this.problem, `${who} ${words}. What you have typed is kept: saving replaces theirs, Escape leaves it.`);
  }

  /** Shows the new text at once, and goes back to what was typed when it cannot be saved. */
  async save() {
    const draft = this.lines ? this.input.value.trimEnd() : this.input.value.trim();
    const { base } = this;
    if (this.saving !== null || base === null) return;
    if (draft === base || (draft === this.begun && !this.collided)) {
      this.leave();
      return;
    }
    this.saving = draft;
    this.base = null;
    this.showText(draft || this.shown({ ...this.run, [this.field === "name" ? "display_name" : this.field]: null }));
    this.box.classList.add("saving");
    this.swap(false);
    let why = null;
    try {
      const { run } = await get(`api/runs/${this.runId}`, { limit: 0, count: "none" });
      if (this.read(run) === base) this.run = await edit(this.runId, { [this.field]: draft });
      else this.run = run;
      if (this.read(run) !== base) why = "changed";
    } catch (error) {
      why = `Not saved: ${error.message}.`;
    }
    this.box.classList.remove("saving");
    this.saving = null;
    this.showText(this.shown(this.run));
    if (why === null) {
      this.begin.focus();
      return;
    }
    this.base = base;
    this.swap(true);
    if (why === "changed") this.collide(this.run);
    else say(this.problem, why);
  }
}

/** The tags of a run: taken away by their button, added by name. */
export class EditedTags {
  constructor(runId) {
    Object.assign(this, { runId, tags: [], pending: new Map() });
    this.list = h("span", { class: "tag-list" });
    this.problem = h("p", { class: "problem", role: "alert" });
    this.input = h("input", { type: "text", class: "tag-input", placeholder: "Add a tag", "aria-label": "Add a tag", maxlength: 200, "data-needs": "admin", autocomplete: "off", onkeydown: (event) => this.key(event) });
    this.box = h("div", { class: "edited tags", "data-edit": "tags" }, h("div", { class: "edit-still" }, this.list, this.input), this.problem);
  }

  set(run) {
    this.tags = run.tags || [];
    this.draw();
  }

  draw() {
    const shown = new Set(this.tags);
    for (const [tag, adds] of this.pending) {
      if (adds) shown.add(tag);
      else shown.delete(tag);
    }
    this.box.classList.toggle("blank", shown.size === 0);
    const key = JSON.stringify([[...shown], [...this.pending]]);
    if (key === this.shownKey) return;
    this.shownKey = key;
    show(this.list, [...shown].map((tag) => h("span", { class: `tag ${this.pending.has(tag) ? "saving" : ""}` }, h("a", { href: `#/runs?${new URLSearchParams({ tag })}`, title: "Runs with this tag" }, tag),
      h("button", { type: "button", class: "ghost", "data-needs": "admin", "aria-label": `Remove the tag ${tag}`, onclick: () => this.change(tag, false) }, "✕"))));
  }

  key(event) {
    if (event.isComposing) return;
    event.stopPropagation();
    if (event.key === "Escape") this.input.value = "";
    if (event.key !== "Enter") return;
    event.preventDefault();
    const tag = this.input.value.trim();
    if (!tag) return;
    this.input.value = "";
    if (this.tags.includes(tag)) say(this.problem, `The run has the tag ${tag} already.`);
    else this.change(tag, true);
  }

  /** Shown at once; taken back when it cannot be saved. */
  async change(tag, adds) {
    say(this.problem, "");
    this.pending.set(tag, adds);
    this.draw();
    if (!adds) this.input.focus();
    try {
      this.tags = (await edit(this.runId, adds ? { add_tags: [tag] } : { remove_tags: [tag] })).tags;
    } catch (error) {
      say(this.problem, `The tag ${tag} was not ${adds ? "added" : "removed"}: ${error.message}.`);
      if (adds && !this.input.value) this.input.value = tag;
    }
    this.pending.delete(tag);
    this.draw();
  }
}

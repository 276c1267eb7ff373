// A small Markdown: code, headings, lists, quotes, rules, emphasis, links. It makes nodes and sets
// text; a model's HTML is never markup here. Block by block, so that a growing answer is cheap.

import { element } from "./elements.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^ {0,3}>\s?(.*)$/;

/** Shows `text` in `target`; blocks that are as they were stay untouched. */
export function showMarkdown(target, text) {
  const blocks = blocksOf(text);
  const old = target.octavoBlocks ?? [];
  let same = 0;
  while (same < blocks.length && same < old.length && equal(blocks[same], old[same])) same += 1;
  while (target.childNodes.length > same) target.lastChild.remove();
  for (const block of blocks.slice(same)) target.append(nodeOf(block));
  target.octavoBlocks = blocks;
}

function equal(one, other) {
  return one.kind === other.kind && one.info === other.info && one.text === other.text;
}

/** The blocks of a text: [{kind, info, text}]. */
export function blocksOf(text) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks = [];
  let index = 0;
  while (index < lines.length) {
    if (!lines[index].trim()) {
      index += 1;
      continue;
    }
    const [block, next] = blockAt(lines, index);
    blocks.push(block);
    index = next;
  }
  return blocks;
}

function blockAt(lines, start) {
  const line = lines[start];
  const fence = FENCE.exec(line);
  if (fence) return codeAt(lines, start, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", info: heading[1].length, text: heading[2] }, start + 1];
  if (RULE.test(line)) return [{ kind: "rule", info: 0, text: "" }, start + 1];
  if (QUOTE.test(line)) return runAt(lines, start, "quote", (other) => QUOTE.test(other));
  if (ITEM.test(line)) {
    return runAt(lines, start, "list", (other) => ITEM.test(other) || /^\s+\S/.test(other));
  }
  return runAt(lines, start, "paragraph", (other) => other.trim() && !startsBlock(other));
}

function startsBlock(line) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((pattern) => pattern.test(line));
}

function codeAt(lines, start, [, mark, language]) {
  const closing = new RegExp(`^ {0,3}\\${mark[0]}{${mark.length},}\\s*$`);
  let end = start + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  return [{ kind: "code", info: language, text: lines.slice(start + 1, end).join("\n") }, end + 1];
}

function runAt(lines, start, kind, belongs) {
  let end = start + 1;
  while (end < lines.length && belongs(lines[end])) end += 1;
  return [{ kind, info: 0, text: lines.slice(start, end).join("\n") }, end];
}

function nodeOf({ kind, info, text }) {
  switch (kind) {
    case "code":
      return codeNode(info, text);
    case "heading":
      return element(`h${Math.min(info + 2, 6)}`, {}, ...inline(text));
    case "rule":
      return element("hr");
    case "quote":
      return quoteNode(text);
    case "list":
      return listNode(text.split("\n"));
    default:
      return element("p", {}, ...inline(text));
  }
}

function codeNode(language, text) {
  const code = element("code", {}, text);
  const block = element("pre", { tabIndex: 0, "aria-label": `${language || "Code"} block` }, code);
  const copy = element("button", { type: "button", className: "quiet copy-code" }, "Copy");
  copy.octavoText = text;
  const head = element("div", { className: "code-head" }, element("span", {}, language), copy);
  return element("div", { className: "code" }, head, block);
}

function quoteNode(text) {
  const inner = text.split("\n").map((line) => QUOTE.exec(line)[1]);
  return element("blockquote", {}, element("p", {}, ...inline(inner.join("\n"))));
}

/** A list and the lists in it, by indentation. */
function listNode(lines) {
  const open = []; // [{indent, list}]
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (!item) {
      open.at(-1).list.lastChild.append("\n", ...inline(line.trim()));
      continue;
    }
    const [, space, mark, text] = item;
    while (open.length > 1 && space.length < open.at(-1).indent) open.pop();
    if (!open.length || space.length > open.at(-1).indent + 1) openList(open, space.length, mark);
    open.at(-1).list.append(element("li", {}, ...inline(text)));
  }
  return open[0].list;
}

function openList(open, indent, mark) {
  const ordered = /\d/.test(mark);
  const list = element(ordered ? "ol" : "ul");
  if (ordered) list.start = Number.parseInt(mark, 10);
  open.at(-1)?.list.lastChild.append(list);
  open.push({ indent, list });
}

// All repetitions have bounds: nothing that a model writes may take long to read.
const INLINE = new RegExp(
  [
    "(?<!`)(?<ticks>`{1,3})(?!`)(?<code>[\\s\\S]{1,2000}?)(?<!`)\\k<ticks>(?!`)",
    "\\[(?<label>[^\\][\\n]{1,300})\\]\\((?<address>https?:\\/\\/[^\\s()<>]{1,2000})\\)",
    "(?<bare>https?:\\/\\/[^\\s<>()\\[\\]\"'`*]{1,2000}[^\\s<>()\\[\\]\"'`*.,;:!?])",
    "\\*\\*(?<strong>(?=\\S)[^\\n]{0,2000}?[^\\s*])\\*\\*",
    "(?<![\\w*])\\*(?<emphasis>(?=[^\\s*])[^*\\n]{0,2000}?[^\\s*]|[^\\s*])\\*(?![\\w*])",
    "(?<!\\w)_(?<underlined>(?=[^\\s_])[^_\\n]{0,2000}?[^\\s_]|[^\\s_])_(?!\\w)",
    "~~(?<deleted>(?=\\S)[^~\\n]{0,2000}?\\S)~~",
  ].join("|"),
  "g",
);

/** Nodes of a line's text. */
function inline(text, depth = 0) {
  if (depth > 4) return [text];
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > end) nodes.push(text.slice(end, match.index));
    nodes.push(inlineNode(match.groups, depth + 1));
    end = match.index + match[0].length;
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}

function inlineNode(groups, depth) {
  if (groups.code !== undefined) return element("code", {}, groups.code);
  if (groups.address) return link(groups.address, inline(groups.label, depth));
  if (groups.bare) return link(groups.bare, [groups.bare]);
  if (groups.strong) return element("strong", {}, ...inline(groups.strong, depth));
  if (groups.deleted) return element("del", {}, ...inline(groups.deleted, depth));
  return element("em", {}, ...inline(groups.emphasis ?? groups.underlined, depth));
}

/** Only http and https get here; the address shows, since the label is the model's. */
function link(address, children) {
  const rel = "noopener noreferrer nofollow";
  return element("a", { href: address, rel, target: "_blank", title: address }, ...children);
}

"""The page on which an error is found by its text. ``python docs/troubleshooting.py`` prints it.

Texts come from the source (``messages.py``), so that none is missing; what they belong to, and what is to be said
beside them, from ``troubleshooting.yml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from message_templates import described, shown
from messages import Message, has_words, messages

HERE = Path(__file__).parent
# In the page of the site: an error is pasted, and messages come first of which it has the most words, rare ones above
# all; those of fewer than five words come last. tests/test_troubleshooting.py ranks in the same way.
_SEARCH = """<script>
(() => {
  const words = text => [...new Set(text.toLowerCase().match(/[a-z_]{3,}/g))];
  const fixed = code => words(code.textContent.replace(/\\{[^}]*\\}/g, " "));
  const box = document.createElement("div");
  box.innerHTML = '<p><label>Paste an error here:<br><textarea rows="3" style="width:100%;font:inherit;' +
    'color:inherit;background:transparent;border:1px solid"></textarea></label></p><ul aria-live="polite"></ul>';
  document.currentScript.replaceWith(box);
  const list = box.querySelector("ul");
  const number = new Map();
  let entries;
  const read = code => {
    const values = [...code.parentElement.querySelectorAll("li")].filter(li => li.textContent.startsWith("{"));
    const own = fixed(code);
    own.forEach(word => number.set(word, (number.get(word) || 0) + 1));
    return [code.parentElement, own, values.flatMap(li => [...li.querySelectorAll("code")].flatMap(fixed))];
  };
  box.querySelector("textarea").addEventListener("input", event => {
    entries ??= [...document.querySelectorAll(":not(li) > ul > li > code:first-child")].map(read);
    const weight = some => some.reduce((sum, word) => sum + Math.log(entries.length / (number.get(word) || 1)), 0);
    const pasted = words(event.target.value);
    const ranked = entries.map(([entry, own, values]) => {
      const hits = [...new Set([...own, ...values])].filter(word => pasted.includes(word));
      const share = weight(own.filter(word => pasted.includes(word))) / (weight(own) || 1);
      return { entry, few: new Set([...own, ...hits]).size < 5, share, score: share * weight(hits) };
    }).filter(hit => hit.share >= 0.6).sort((a, b) => b.score - a.score);
    const best = ranked.filter(hit => hit.score > ranked[0].score / 2).sort((a, b) => a.few - b.few).slice(0, 5);
    list.replaceChildren(...best.map(hit => hit.entry.cloneNode(true)));
    if (pasted.length && !best.length) list.textContent = "No message has these words.";
  });
})();
</script>"""


@dataclass(frozen=True)
class Subject:
    """A part of a group: messages of some locations; ``is_part``: they stand within others, which say the remedy."""

    group: str
    title: str
    locations: tuple[str, ...]
    is_part: bool


@cache
def prose() -> Mapping[str, Any]:
    """What is written by hand."""
    content: Mapping[str, Any] = yaml.safe_load((HERE / 'troubleshooting.yml').read_text(encoding='utf-8'))
    return content


@cache
def subjects() -> tuple[Subject, ...]:
    """Of all groups, in the order of the page."""
    return tuple(
        Subject(group['title'], subject['title'], tuple(subject['from']), subject.get('is_part', False))
        for group in prose()['groups']
        for subject in group['subjects']
    )


@cache
def subject_of(location: str) -> Subject | None:
    """The subject with the longest location that fits; None: there is none, or something internal fits as well."""
    fitting = [(len(outer), subject) for subject in subjects() for outer in subject.locations if is_in(location, outer)]
    longest = max((length for length, _ in fitting), default=0)
    if is_internal(location) >= longest:
        return None
    (subject,) = [subject for length, subject in fitting if length == longest]
    return subject


def is_internal(location: str) -> int:
    """The length of the location by which something is internal, as longer ones count; 0: it is not."""
    return max((len(outer) for outer in prose()['internal'] if is_in(location, outer)), default=0)


def is_in(location: str, outer: str) -> bool:
    """Whether a location is, or lies in, another."""
    return location.startswith(outer) and re.match(r'$|[/:.]', location[len(outer) :]) is not None


@cache
def shown_messages() -> tuple[Message, ...]:
    """Those that the page has: all but internal ones and those that hand on another's words."""
    texts = messages(prose()['told_by'])
    passed_on = prose()['passed_on']
    return tuple(m for m in texts if not is_internal(m.location) and (has_words(m.text) or m.location not in passed_on))


def notes_of(text: str) -> list[str]:
    """What is written by hand beside a message."""
    return [' '.join(note['note'].split()) for note in prose()['notes'] if note['message'] in text]


def troubleshooting() -> str:
    """The page, as Markdown."""
    parts = ['# Troubleshooting by message', prose()['intro'].strip(), _SEARCH, *_statuses()]
    for group in prose()['groups']:
        parts += [f'## {group["title"]}', group['intro'].strip()]
        for subject in (subject for subject in subjects() if subject.group == group['title']):
            entries = {shown(m.text): entry(m) for m in shown_messages() if subject_of(m.location) is subject}
            parts += [f'### {subject.title}', *_folded(entries[text] for text in sorted(entries, key=_by_words))]
    return '\n\n'.join([*parts, *_others()]) + '\n'


def _folded(entries: Iterable[str]) -> list[str]:
    lines = [*entries]
    return ['<details markdown="1">', f'<summary>{len(lines)} messages</summary>', '\n'.join(lines), '</details>']


def _statuses() -> Iterator[str]:
    yield '## How a command ends'
    rows = [f'| {" | ".join(row)} |' for row in prose()['statuses']]
    yield '\n'.join(['| exit status | meaning | what next |', '| --- | --- | --- |', *rows])


def entry(message: Message) -> str:
    """A message, what its values may be, and the notes on it."""
    lines = [f'- {code(shown(message.text))}']
    for name, options in dict(described(message.text)).items():
        lines.append(f'    - {code(f"{{{name}}}")}: ' + ' or '.join(map(code, options)))
    return '\n'.join([*lines, *(f'    - {note}' for note in notes_of(shown(message.text)))])


def _others() -> Iterator[str]:
    yield '## Messages of torch, mmengine, mmcv, mmdet and others'
    yield prose()['others_intro'].strip()
    lines = []
    beside = {text: other for other in prose()['others'] for text in other['messages']}
    for text in sorted(beside, key=_by_words):
        notes = (f'    - {key.capitalize()}: {" ".join(beside[text][key].split())}' for key in ('cause', 'remedy'))
        lines.append('\n'.join([f'- {code(text)}', *notes]))
    yield from _folded(lines)


def code(text: str) -> str:
    """A text as the page has it."""
    text = ' / '.join(' '.join(line.split()) for line in text.splitlines())
    return f'`` {text} ``' if '`' in text else f'`{text}`'


def _by_words(text: str) -> list[str]:
    """A key that leaves out values and signs."""
    return re.findall(r'[a-z]+', re.sub(r'\{[^{}]*\}', '', text).lower()) or [text]


def main() -> None:
    """Print the page."""
    print(troubleshooting(), end='')


if __name__ == '__main__':
    main()

"""What the documents name is there: files, commands, settings, metrics, tests, targets, ADRs, sections.

ADRs and the changelog speak of their own day, and are not looked at.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperCommand, TyperGroup

from gateway import cli, decoders, errors, settings
from gateway.daemon import app
from gateway.settings import tree
from tests.support.minimal import MINIMAL
from tests.unit.test_config_files import exposed
from tests.unit.test_repository import pins

ROOT = Path(__file__).parents[2]
PAGES = [page for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")) if page.name != "CHANGELOG.md"]
TEXTS = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in PAGES}
FILES = {str(path.relative_to(ROOT)) for path in ROOT.glob("[!.]*/**/*")} | {p.name for p in ROOT.iterdir()}
OPTIONS = set(tree.options(settings.Settings))
OTHER_PROGRAMS_FILES = {"acl.conf", "postgresql.conf"}
CODE = re.compile(r"`([^`\n]+)`")
LINE = re.compile(r"^    (?:\S+/)?(gateway [a-z][^#\n]*)", re.MULTILINE)


def commands() -> dict[str, TyperCommand | TyperGroup]:
    """All commands, ``tenant reader add``, and the nouns above them."""
    return {name: found for noun in cli._TEXTS for name, found in _below(noun, cli.load(noun))}


def _below(name: str, loaded: object) -> Iterator[tuple[str, TyperCommand | TyperGroup]]:
    assert isinstance(loaded, TyperCommand | TyperGroup)
    yield name, loaded
    if isinstance(loaded, TyperGroup):
        for verb, inner in loaded.commands.items():
            yield from _below(f"{name} {verb}", inner)


COMMANDS = commands()


def wrong_command(call: str) -> str:
    """What is wrong with ``gateway device add X --type Y``, or with any of ``gateway device add|list``."""
    name, words = "", call.replace("\\|", "|").split()[1:]
    while words and isinstance(COMMANDS.get(name), TyperGroup | None):
        if gone := [verb for verb in words[0].split("|") if f"{name} {verb}".strip() not in COMMANDS]:
            return "" if words[0].startswith("-") else f"{call}: no {' or '.join(gone)}"
        name = f"{name} {words.pop(0).split('|')[0]}".strip()
    known = {option for one in COMMANDS[name].params for option in (*one.opts, "-h", "--help")}
    used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
    return ", ".join(f"{call}: no {option}" for option in sorted(used - known))


def is_file(name: str) -> bool:
    """Whether this file is there; a name without its folder is one of some file."""
    return name.rstrip("/") in FILES or any(path.endswith(f"/{name}") for path in FILES)


@pytest.mark.parametrize("page", TEXTS)
def test_files_are_there(page: str) -> None:
    """By their paths; files beside one that was named, by their names."""
    paths = r"(?:gateway|tests|config|docs|migrations)/[\w./-]*|[\w/]+\.(?:py|md|toml|yml|json|service|conf|acl|svg)"
    named = {text for text in CODE.findall(TEXTS[page]) if re.fullmatch(paths, text)} - OTHER_PROGRAMS_FILES
    links = re.findall(r"\]\(([^)#:]+)\)", TEXTS[page])
    assert {name for name in named if not is_file(name)} == set()
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_commands_can_be_typed(page: str) -> None:
    """Nouns, verbs and options, in the text and in blocks."""
    named = [text for text in CODE.findall(TEXTS[page]) if re.match("gateway [a-z]", text)]
    wrong = {wrong_command(call) for call in (*named, *LINE.findall(TEXTS[page]))}
    assert wrong - {""} == set()


def test_readme_lists_every_command() -> None:
    """Its table has them all, each with its verbs."""
    rows = re.findall(r"^\| `gateway ([^`]+)` \|", TEXTS["README.md"], re.MULTILINE)
    calls = {
        f"{words[0]}{verb}"
        for row in rows
        for words in [row.replace("\\|", "|").rpartition(" ")]
        for verb in [f" {verb}" if words[0] else verb for verb in words[2].split("|")]
    }
    assert calls == {name for name, found in COMMANDS.items() if not isinstance(found, TyperGroup)}


def test_every_decoder_is_described() -> None:
    """`docs/payloads.md` says what each takes."""
    assert [name for name in decoders._FORMATS if f"`{name}`" not in TEXTS["docs/payloads.md"]] == []


def test_wrong_commands_are_seen() -> None:
    """A verb and an option that are not there; what stands behind a bar too."""
    assert [
        wrong_command(f"gateway {call}") for call in ("device buy", "device add|buy", "status --slow")
    ] == [
        "gateway device buy: no buy",
        "gateway device add|buy: no buy",
        "gateway status --slow: no --slow",
    ]
    assert wrong_command("gateway tenant reader add acme --name x") == ""


@pytest.mark.parametrize("page", TEXTS)
def test_settings_are_there(page: str) -> None:
    """``section.option``, and the variables of the environment."""
    sections = {option.partition(".")[0] for option in OPTIONS}
    named = {text for text in CODE.findall(TEXTS[page]) if re.fullmatch(r"[a-z_]+\.[a-z_]+", text)}
    variables = re.findall(r"\bGATEWAY__(\w+)", TEXTS[page])
    asked = {name for name in named if name.partition(".")[0] in sections and not is_file(name)}
    asked |= {variable.lower().replace("__", ".") for variable in variables}
    assert asked - OPTIONS == set()


@pytest.mark.parametrize("page", TEXTS)
def test_metrics_tests_targets_and_decisions_are_there(page: str) -> None:
    """Each by its name: ``gateway_rows_total``, ``test_…``, ``make test``, ADR 18."""
    text = TEXTS[page]
    metrics = {
        name
        for name in CODE.findall(text)
        if re.fullmatch(r"gateway_\w+_(total|seconds|messages|bytes)", name)
    }
    sources = "".join(path.read_text("utf-8") for path in ROOT.glob("tests/**/*.py"))
    tests = {name for name in CODE.findall(text) if re.fullmatch(r"test_\w+", name)}
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert metrics - exposed().keys() == set()
    assert {name for name in tests if f"def {name}(" not in sources} == set()
    assert set(re.findall(r"`(?:\w+=\S+ )*make ([a-z]+)", text)) - set(targets) == set()
    assert [number for number in re.findall(r"ADRs? (\d+)", text) if not is_adr(int(number))] == []


def is_adr(number: int) -> bool:
    """Whether there is a decision of this number."""
    return any(name.startswith(f"docs/adr/{number:04}-") for name in FILES)


@pytest.mark.parametrize("page", TEXTS)
def test_sections_are_there(page: str) -> None:
    """`README.md`, *Commands*: a heading of that page."""
    named = re.findall(r"`([\w/-]+\.md)`, \*([^*]+)\*", TEXTS[page])
    assert [(other, name) for other, name in named if f"\n## {name}\n" not in TEXTS[other]] == []


def test_ten_questions_are_each_answered_by_one_file() -> None:
    """A newcomer opens one file a question."""
    rows = re.findall(r"^\| .+\? \| (.+) \|$", TEXTS["CONTRIBUTING.md"], re.MULTILINE)
    answers = [CODE.findall(row) for row in rows]
    assert len(answers) == 10
    assert [names for names in answers if len(names) != 1 or not (ROOT / names[0]).is_file()] == []


def test_the_numbers_of_packages_are_those_of_the_locks() -> None:
    """What README says that `make demo` and `make test` install."""
    text = " ".join(TEXTS["README.md"].split())
    demo, dev = re.findall(r"installs (\d+) packages, `make test` (\d+)", text)[0]
    assert {"demo": int(demo), "dev": int(dev)} == {
        name: len(pins(f"requirements-{name}.lock")) for name in ("demo", "dev")
    }


def shortest() -> str:
    """The configuration that README shows."""
    return TEXTS["README.md"].partition("```toml\n")[2].partition("```")[0]


def test_the_shortest_configuration_is_the_shortest(tmp_path: Path) -> None:
    """It is what an annotated one sets, and without any of its lines there is no configuration."""
    file = tmp_path / "gateway.toml"
    file.write_text(MINIMAL)
    all_of_it = settings.load(file)
    file.write_text(shortest())
    assert settings.load(file) == all_of_it
    lines = [line for line in shortest().splitlines() if "=" in line]
    for line in lines:
        file.write_text(shortest().replace(f"{line}\n", ""))
        with pytest.raises(errors.ConfigurationError):
            settings.load(file)
    assert len(tomllib.loads(shortest())) == 3


def test_the_exit_codes_are_told() -> None:
    """README says what each exit code of a command and of the daemon means."""
    commands_section = " ".join(TEXTS["README.md"].partition("\n## Commands\n")[2].split())
    general = commands_section.partition("Exit codes:")[2].partition(". ")[0]
    told = {int(code) for code in re.findall(r"(?:^|, )\s*(\d+) ", general)}
    assert told == {0, *(code for _kind, code in cli._EXIT_CODES)}
    (daemon,) = re.findall(r"^\| `gateway run` \|.*$", TEXTS["README.md"], re.MULTILINE)
    told = {int(code) for code in re.findall(r"(?::|,) (\d) ", daemon)}
    stopped = {code for name, code in vars(app).items() if name.startswith("STOPPED_")}
    assert told == stopped | {
        cli.exit_code(kind("")) for kind in (errors.UsageError, errors.StartError, errors.ConfigurationError)
    }

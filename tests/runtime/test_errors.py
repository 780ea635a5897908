"""Messages of errors may contain names from outside."""

import pytest

from cdl.device.images import Student
from cdl.device.main import main
from cdl.runtime.errors import CdlError


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("a\u202eb", "a\\u202eb"),
        ("a\rb\0", "a\\rb\\x00"),
        ("été 猫", "été 猫"),
        ("two\nlines", "two\nlines"),
        ("\udcff.png", "\udcff.png"),  # a name that is not UTF-8, which stderr writes as its bytes
    ],
)
def test_control_characters_of_names_are_escaped(given, shown):
    assert str(CdlError(given)) == shown


def test_a_terminal_gets_no_escape_sequence_from_the_name_of_a_file(tmp_path, capsys):
    folder = tmp_path / "\x1b[31mred"
    folder.mkdir()
    assert main(Student, ["info"], folder) == 1
    assert "\\x1b[31mred" in (found := capsys.readouterr().err) and "\x1b" not in found

"""Tables in text files: what they hold is read whole, or refused with the line and the column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vaeflow.data import Arrays, Digits
from vaeflow.data.tables import read_table
from vaeflow.errors import VaeflowError, VaeflowWarning

VALUES = [[0.5, -2.0], [3.25, 4e-3]]
READ: dict[str, tuple[str | bytes, list[str] | None]] = {
    "commas": ("0.5,-2\n3.25,4e-3\n", None),
    "header of e and i": ("e,i\n0.5,-2\n3.25,4e-3\n", ["e", "i"]),
    "header of inf and nan": ("inf,nan\n0.5,-2\n3.25,4e-3\n", ["inf", "nan"]),
    "header with a number": ("year,2000\n0.5,-2\n3.25,4e-3\n", ["year", "2000"]),
    "semicolons": ("u;v\n0.5;-2\n3.25;4e-3\n", ["u", "v"]),
    "semicolons and decimal commas": ("u;v\n0,5;-2\n3,25;4e-3\n", ["u", "v"]),
    "tabs and decimal commas": ("0,5\t-2\n3,25\t0,004\n", None),
    "blanks": ("u v\n  0.5    -2 \n 3.25 4e-3\n", ["u", "v"]),
    "blanks and decimal commas": ("0,5 -2,0\n3,25 4e-3\n", None),
    "commas and blanks": ("u, v\n0.5, -2\n3.25, 4e-3\n", ["u", "v"]),
    "quotes": ('"u","my v"\n"0.5","-2"\n"3.25",4e-3\n', ["u", "my v"]),
    "quoted decimal commas": ('"u";"v"\n"0,5";"-2"\n"3,25";"4e-3"\n', ["u", "v"]),
    "a separator in quotes": ('"u, v";w\n0.5;-2\n3.25;4e-3\n', ["u, v", "w"]),
    "separators at the end": ("u,v,\n0.5,-2,\n3.25,4e-3,\n", ["u", "v"]),
    "separators at the end of rows": ("u;v\n0.5;-2;;\n3.25;4e-3;;\n;;;\n", ["u", "v"]),
    "byte order mark, CRLF, blank lines": (b"\xef\xbb\xbfu,v\r\n0.5,-2\r\n3.25,4e-3\r\n\r\n\r\n", ["u", "v"]),
    "Excel's Unicode text": ("u\tv\r\n0,5\t-2\r\n3,25\t0,004\r\n".encode("utf-16"), ["u", "v"]),
    "numpy.savetxt's header": ("# u v\n0.5 -2\n3.25 4e-3\n", ["u", "v"]),
    "comments": ("# measured on a Monday\n0.5,-2\n# again\n3.25,4e-3\n", None),
    "pandas' index": (",u,v\n0,0.5,-2\n1,3.25,4e-3\n", ["u", "v"]),
    "pandas' index, written twice": (",Unnamed: 0,u,v\n0,7,0.5,-2\n1,3,3.25,4e-3\n", ["u", "v"]),
    "pandas without names": (",0,1\n0,0.5,-2\n1,3.25,4e-3\n", ["0", "1"]),
    "pandas without names or index": ("0,1\n0.5,-2\n3.25,4e-3\n", ["0", "1"]),
    "years": ("2019,2020\n0.5,-2\n3.25,4e-3\n", ["2019", "2020"]),
    "years, the last first": ("2020;2019\n0,5;-2\n3,25;4e-3\n", ["2020", "2019"]),
    "pandas' index and years": (",2019,2020\n0,0.5,-2\n1,3.25,4e-3\n", ["2019", "2020"]),
    "three decimals, one below 1": ("0,500\t-2\n3,250\t0,004\n", None),
    "quoted numbers above others": ('"400","410"\n0.5,-2\n3.25,4e-3\n', ["400", "410"]),
    "R's write.csv": ('"","u","v"\n"1",0.5,-2\n"2",3.25,4e-3\n', ["u", "v"]),
    "R's write.csv2": ('"";"u";"v"\n"1";0,5;-2\n"2";3,25;0,004\n', ["u", "v"]),
    "R's write.table": ('"u" "v"\n"1" 0.5 -2\n"2" 3.25 4e-3\n', ["u", "v"]),
    "R's write.table without names": ('"1" 0.5 -2\n"2" 3.25 4e-3\n', None),
}


@pytest.mark.parametrize("case", READ)
def test_tables_of_any_separator_and_header_are_read(case: str, tmp_path: Path) -> None:
    content, names = READ[case]
    path = tmp_path / "t.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    table = read_table(path)
    assert table.values.dtype == np.float64
    assert table.values.tolist() == VALUES
    assert table.column_names == names
    left_out = case.startswith(("pandas' index", "R's")) or case == "pandas without names"
    assert any("has no name and numbers the rows: it was left out" in note for note in table.notes) == left_out
    assert any("though numbers are among them" in note for note in table.notes) == any(
        name[0].isdigit() or name in ("inf", "nan") for name in names or []
    )


REFUSED = {
    "u,v\n1.5,NA\n3,4\n": "line 2 of t.csv holds 'NA' in column 'v' (2 of 2), expected a finite number",
    "NA,1.5\n3,4\n": "line 1 of t.csv holds 'NA' in column 1 of 2",
    "1.5,,2\n3,4,5\n": "line 1 of t.csv holds nothing in column 2 of 3",
    "u;v\n\n1,5;2\n3;\n": "line 4 of t.csv holds nothing in column 'v' (2 of 2)",
    "u,v\n1,2\n3,nan\n": "line 3 of t.csv holds 'nan' in column 'v' (2 of 2)",
    "u,v\nm,kg\n1,2\n": "line 2 of t.csv holds 'm' in column 'u' (1 of 2)",
    '"","u"\n"Mazda RX4",21\n"Datsun",22\n': "line 2 of t.csv holds 'Mazda RX4' in column 1 of 2",
    "u,v\n1,2\n3\n": "line 3 of t.csv has 1 cell, expected 2 numbers with commas between them",
    "1 2\n3 4\n5 6 7\n": "line 3 of t.csv has 3 cells, expected 2 numbers with blanks between them",
    "u,v,w\n1,2\n": "t.csv has 3 names in line 1 but 2 cells in line 2",
    "u;v\n1.234;0,5\n1;2\n": "decimal commas and others with points",
    "u\tv\n8,217\t300\n-1,500\t4\n": "t.csv holds 8,217, and each number with a comma has three digits behind it",
    "8,217;0.5\n1,500;4\n": "decimal commas and others with points",
    "a\n1,5\n2,25\n": "has one name in line 1 but two cells in line 2: if its commas are decimal signs, write",
    '"1,5","2,5"\n"1,7","2,9"\n': "expected a finite number: write decimal points, and nothing between thousands",
    ",u\n3,0.5\n3,0.7\n": "column 1 of 2 in t.csv has no name and holds whole numbers: delete it",
    ",u\n3,0.5\n900,0.7\n": "column 1 of 2 in t.csv has no name and holds whole numbers: delete it",
    "u,v\n": "t.csv holds no line of numbers",
    "": "t.csv holds no line of numbers",
    "\x00,1\x00\n2,3\n": "bytes that are no text",
}


@pytest.mark.parametrize("content", REFUSED)
def test_what_is_no_number_is_refused_with_its_place(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(content)
    with pytest.raises(VaeflowError) as error:
        read_table(Path("t.csv"))
    assert REFUSED[content] in str(error.value)
    assert "\n" not in str(error.value)


def test_columns_have_names_and_pixels_places(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 2))
    lines = [f"{i},{u},{v}\n" for i, (u, v) in enumerate(rows.tolist())]
    for name in ("t.CSV", "t.tsv", "T.TXT"):
        (tmp_path / name).write_text("".join([",u,v\n", *lines]))
        with pytest.warns(VaeflowWarning, match="column 1 of 3"):
            data = Arrays(str(tmp_path / name))
        data.setup("fit")
        assert (data.shape, data.column_names) == ((2,), ["u", "v"])
    assert [data.dimension_name(i) for i in range(2)] == ["column 'u'", "column 'v'"]
    np.save(tmp_path / "t.npy", rows)
    bare = Arrays(str((tmp_path / "t.npy").rename(tmp_path / "t.NPY")))
    assert (bare.column_names, bare.dimension_name(1)) == (None, "column 1")
    assert Digits().dimension_name(17) == "pixel (2, 1)"
    np.save(tmp_path / "c.npy", np.random.default_rng(0).integers(0, 256, (20, 2, 5, 3)).astype(np.uint8))
    assert Arrays(str(tmp_path / "c.npy")).dimension_name(19) == "pixel (1, 1, 4)"


def test_a_named_column_that_counts_the_rows_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,u\n" + "".join(f"{i},{0.1 * i * i}\n" for i in range(20)))
    table = read_table(tmp_path / "t.csv")
    assert (table.values.shape, table.column_names, table.notes) == ((20, 2), ["id", "u"], [])


def test_units_that_float64_cannot_square_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 2))
    for scale, most in ((1e300, "e\\+300"), (1e-300, "e-300")):
        np.save(tmp_path / "t.npy", rows * [1, scale])
        with pytest.raises(
            VaeflowError, match=rf"column 1 .*holds values of \d.*{most} at most, expected some between"
        ):
            Arrays(str(tmp_path / "t.npy")).setup("fit")
    np.save(tmp_path / "t.npy", rows * [1e30, 1e-30])  # all of the first are whole numbers
    mean, scale_found = Arrays(str(tmp_path / "t.npy")).statistics()
    assert (mean.abs() < scale_found).all()


def test_a_column_of_decimal_commas_is_no_pair_of_integers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("".join(f"{i},{i * i % 7}\n" for i in range(30)))
    with pytest.raises(VaeflowError, match="if its commas are decimal signs, write points instead"):
        Arrays(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("name", ["test", "val", "x_test", "validation"])
def test_a_split_alone_is_no_training_data(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **{name: np.random.default_rng(0).normal(size=(50, 2))})
    with pytest.raises(VaeflowError, match=f"holds {name} alone, expected train as well"):
        Arrays(str(tmp_path / "t.npz"))


def test_commas_between_semicolons_are_decimal_signs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("temp;mass\n37,125;12,500\n36,900;11,250\n")
    assert read_table(tmp_path / "t.csv").values.tolist() == [[37.125, 12.5], [36.9, 11.25]]


@pytest.mark.parametrize("first", ["1999,2000", "1850,1851"])
def test_intervals_of_years_are_no_header(first: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{first}\n1985,2003\n1990,1995\n")
    table = read_table(tmp_path / "t.csv")
    assert (len(table.values), table.column_names) == (3, None)


@pytest.mark.parametrize("names", ["400,410,420", "2015,2018,2021", "3,2,1"])
def test_equally_spaced_numbers_above_fractions_are_names(names: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"{names}\n0.5,0.25,0.125\n1.5,1.25,1.125\n")
    table = read_table(tmp_path / "t.csv")
    assert (len(table.values), table.column_names) == (2, names.split(","))
    assert "though numbers are among them" in table.notes[0]
    (tmp_path / "t.csv").write_text(f"{names}\n5,2,1\n6,7,7\n")
    assert len(read_table(tmp_path / "t.csv").values) == 3

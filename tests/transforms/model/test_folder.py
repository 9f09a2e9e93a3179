"""Model folders: written whole, checked before use, refused by name."""

import json

import pytest

from transforms.model import folder
from transforms.model.folder import Model, read_model_folder, write_model_folder
from transforms.records import InputError

MODEL = Model(
    name="office",
    created="2026-01-05T08:00:00Z",
    flowbeam="0.1.0",
    task="binary",
    feature_set="cic@1",
    features=("Flow Duration", "Total Fwd Packet", "Total Bwd packets"),
    classes=("BENIGN", "DoS"),
    benign="BENIGN",
    threshold=0.5,
    training={"rows": 10},
    metrics={"accuracy": 1.0},
)


def write_files(place):
    (place / "forest").mkdir()
    (place / "forest" / "nodes").write_bytes(b"trees")
    (place / "report.html").write_text("good", encoding="utf-8")


@pytest.fixture
def written(tmp_path):
    place = tmp_path / "models" / "office"
    write_model_folder(place, MODEL, write_files)
    return place


def edit(place, **changes):
    said = json.loads((place / "model.json").read_text(encoding="utf-8"))
    (place / "model.json").write_text(json.dumps({**said, **changes}), encoding="utf-8")


def test_what_was_written_is_read(tmp_path):
    """With an id that names the model and its files; nothing else is left beside it."""
    place = tmp_path / "models" / "office"
    model = write_model_folder(place, MODEL, write_files)
    assert read_model_folder(place) == model
    assert model._replace(id="", files={}) == MODEL
    assert model.id.startswith("office-")
    assert sorted(model.files) == ["forest/nodes", "report.html"]
    assert [path.name for path in place.parent.iterdir()] == ["office"]


def test_the_id_follows_the_files_and_nothing_else(tmp_path):
    def other_files(place):
        write_files(place)
        (place / "forest" / "nodes").write_bytes(b"other trees")

    first = write_model_folder(tmp_path / "a", MODEL, write_files)
    assert write_model_folder(tmp_path / "b", MODEL._replace(threshold=0.9), write_files).id == first.id
    assert write_model_folder(tmp_path / "c", MODEL, other_files).id != first.id


def test_a_new_model_takes_the_place_of_the_old_one(written):
    def fewer_files(place):
        (place / "forest").mkdir()
        (place / "forest" / "trees").write_bytes(b"fewer")

    model = write_model_folder(written, MODEL, fewer_files)
    assert read_model_folder(written) == model
    assert [path.name for path in written.parent.iterdir()] == ["office"]
    assert not (written / "report.html").exists()


def test_a_write_that_fails_leaves_the_old_model(written):
    def failing(place):
        write_files(place)
        raise RuntimeError("no room")

    before = read_model_folder(written)
    with pytest.raises(RuntimeError, match="no room"):
        write_model_folder(written, MODEL, failing)
    assert read_model_folder(written) == before
    assert [path.name for path in written.parent.iterdir()] == ["office"]


def test_through_a_link_the_folder_behind_it_is_replaced(written, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(written)
    write_model_folder(link, MODEL._replace(threshold=0.75), write_files)
    assert link.is_symlink()
    assert read_model_folder(written).threshold == 0.75


def test_what_is_no_model_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(InputError, match="is there already and is no model"):
        write_model_folder(tmp_path, MODEL, write_files)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"format": 2}, "format 2 is not 1.*train the model again"),
        ({"feature_set": "cic@9"}, "feature_set: unknown feature set 'cic@9': did you mean cic@1"),
        ({"features": ["Total Fwd Packet", "Flow Duration"]}, "not in the order of cic@1"),
        ({"features": ["Flow Duration", "Luck"]}, "cic@1 has no Luck"),
        ({"features": []}, "features must be names"),
        ({"features": None}, "features is missing or wrong"),
        ({"classes": ["BENIGN", "BENIGN"]}, "classes must be names, each once"),
        ({"classes": ["BENIGN", "DoS", "Scan"]}, "3 classes do not make a binary model"),
        ({"task": "regression"}, "task 'regression' is none of"),
        ({"benign": "Normal"}, "benign 'Normal' is none of the classes"),
        ({"threshold": 1.5}, "threshold 1.5 is no probability"),
        ({"threshold": True}, "threshold is missing or wrong"),
        ({"id": "office-000000000000"}, "its id office-000000000000 is not that of its files"),
        ({"files": {"../forest/nodes": "0" * 64}}, "is no file of the folder"),
        ({"files": {"report.html": "0" * 64}}, "there is none in forest/"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_descriptions_that_are_refused(written, changes, refusal):
    """By the name of the folder and of what is wrong, in one line."""
    edit(written, **changes)
    with pytest.raises(InputError, match=refusal) as refused:
        read_model_folder(written)
    assert str(written) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_columns_of_a_foreign_table_have_no_set(written):
    edit(written, feature_set=None, features=["zeta", "alpha"])
    assert read_model_folder(written).features == ("zeta", "alpha")


def test_files_that_are_missing_or_damaged_are_refused_by_name(written):
    nodes = written / "forest" / "nodes"
    nodes.write_bytes(b"tree")
    with pytest.raises(InputError, match="forest/nodes is damaged or half written"):
        read_model_folder(written)
    nodes.unlink()
    with pytest.raises(InputError, match="forest/nodes is missing"):
        read_model_folder(written)


def test_a_description_that_is_cut_off_is_refused(written):
    description = written / "model.json"
    description.write_bytes(description.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"model.json is damaged or half written"):
        read_model_folder(written)
    description.write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="is no description of a model"):
        read_model_folder(written)
    description.unlink()
    with pytest.raises(InputError, match=r"has no model\.json"):
        read_model_folder(written)


def test_places_without_a_model_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        read_model_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is no folder"):
        read_model_folder(tmp_path / "file")


def test_a_look_sees_every_change(written):
    """Of a file, of the set of files, and of what stands behind a link."""
    looks = [folder.look_at(written)]
    assert folder.look_at(written) == looks[0]
    (written / "forest" / "nodes").write_bytes(b"longer than before")
    looks.append(folder.look_at(written))
    (written / "forest" / "more").touch()
    looks.append(folder.look_at(written))
    write_model_folder(written, MODEL, write_files)
    looks.append(folder.look_at(written))
    assert len(set(looks)) == 4

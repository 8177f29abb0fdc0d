"""AI packs for the NPUs of phones, with a compiler that is made up: no vendor's SDK is at hand."""

import itertools
import pathlib
import re
import xml.etree.ElementTree

import keras
import pytest
from ai_edge_litert.aot import aot_compile, prepare_for_npu
from ai_edge_litert.aot.core import aot_types, apply_plugin
from keras_distill.tflite import android, runtimes

from keras_distill import tflite

CHIPS = {"qualcomm": ["SM8650", "SM8750"], "mediatek": ["MT6991"], "google_tensor": ["Tensor_G5"],
         "samsung": ["E9965"]}  # fmt: skip


@pytest.fixture(scope="module")
def artifact():
    inputs = keras.Input((3,))
    return tflite.convert(keras.Model(inputs, keras.layers.Dense(2)(inputs)))


@pytest.fixture
def compiler(monkeypatch):
    """What is compiled is the chip's name, in front of the file."""

    def compiled(path, output_dir, target, keep_going):
        result = aot_types.CompilationResult()
        for each in target:
            made = pathlib.Path(output_dir, f"{each}.tflite")
            made.write_bytes(str(each.soc_model).encode() + pathlib.Path(path).read_bytes())
            config = aot_types.CompilationConfig(each).to_dict()
            backend = prepare_for_npu.resolve_backend(config).create(config)
            model = aot_types.Model.create_from_path(made)
            result.models_with_backend.append((backend, model))
        return result

    monkeypatch.setattr(aot_compile, "aot_compile", compiled)


def test_pack_has_a_file_for_each_chip_and_one_for_others(artifact, compiler, tmp_path):
    folder = android.save_ai_pack(artifact, CHIPS, tmp_path / "ai_packs", "my digits")
    xml_file = xml.etree.ElementTree.parse(folder / "device_targeting_configuration.xml")
    assets = folder / "my_digits/src/main/assets"
    files = {path.parent.name: path.read_bytes() for path in assets.glob("*/my_digits.tflite")}
    assert files.pop("model#group_other") == artifact.tflite
    compiled = {name: file.removesuffix(artifact.tflite).decode() for name, file in files.items()}
    assert sorted(compiled.values()) == sorted(itertools.chain(*CHIPS.values()))
    # Each folder is a group of the configuration, which tells phones apart by such a chip.
    groups = {group.get("name"): group for group in xml_file.getroot()}
    assert {f"model#group_{name}" for name in groups} == set(files)
    for name, group in groups.items():
        models = {chip.get("model").replace(" ", "_") for chip in group.iter() if chip.get("model")}
        assert models == {compiled[f"model#group_{name}"]}
    assert 'packName = "my_digits"' in (folder / "my_digits/build.gradle.kts").read_text()
    readme = (folder / "README.md").read_text()
    assert '":ai_packs:my_digits"' in readme
    for vendor in CHIPS:
        assert readme.count(f'":ai_packs:npu_{vendor}"') == 2
    assert not re.search(r"@[A-Z]+@", readme)


def test_runtimes_reach_the_phones_of_their_vendor(artifact, compiler, tmp_path):
    """A feature module for each vendor, for the groups of its chips alone."""
    folder = android.save_ai_pack(artifact, CHIPS, tmp_path / "ai_packs", "digits")
    targeting = xml.etree.ElementTree.parse(folder / "device_targeting_configuration.xml")
    left = {group.get("name") for group in targeting.getroot()}
    strings = xml.etree.ElementTree.parse(folder / "npu_strings.xml").getroot()
    titles = {f"@string/{text.get('name')}" for text in strings}
    space = "{http://schemas.android.com/apk/distribution}"
    for vendor, chips in CHIPS.items():
        module = folder / f"npu_{vendor}"
        [of] = xml.etree.ElementTree.parse(module / "src/main/AndroidManifest.xml").getroot()
        titles.remove(of.get(f"{space}title"))
        [conditions] = of.findall(f"{space}delivery/{space}install-time/{space}conditions")
        [groups] = conditions.findall(f"{space}device-groups")
        own = {group.get(f"{space}name") for group in groups}
        assert len(own) == len(chips)
        left -= own
        gradle = (module / "build.gradle.kts").read_text()
        assert 'id("com.android.dynamic-feature")' in gradle
        assert "// Not run." in gradle
        assert not re.search(r"@[A-Z]+@", gradle)
        published = (
            f'"com.google.ai.edge.litert:litert-npu-runtime-{vendor.replace("_", "-")}:2.3.0"'
        )
        assert (published in gradle) == (vendor != "samsung")
        # What parses as Kotlin has as many braces that open as close.
        assert gradle.count("{") == gradle.count("}")
    assert left == titles == set()


def test_all_but_the_vendors_plugin_is_litert_itself(artifact, monkeypatch, tmp_path):
    """LiteRT's own steps, backends and files; the plugin marks the file with maker and chip."""

    def compiled(self, given, made, maker, chip, **libraries):
        file = given.model_bytes if given.in_memory else given.path.read_bytes()
        made.path.write_bytes(file + f"|{maker} {chip}".encode())

    monkeypatch.setattr(apply_plugin.ApplyPlugin, "__call__", compiled)
    made = android.compile_for_npu(artifact, "qualcomm", "SM8750")
    assert made.endswith(b"|Qualcomm SM8750")
    assert runtimes.ports_of(made) == artifact.ports
    folder = android.save_ai_pack(artifact, CHIPS, tmp_path / "packs")
    files = {path.parent.name: path.read_bytes() for path in folder.rglob("student.tflite")}
    assert files.pop("model#group_other") == artifact.tflite
    # MediaTek's compiler is given names in small letters.
    marks = {file.rsplit(b" ")[-1].decode().lower() for file in files.values()}
    assert marks == {chip.lower() for chip in itertools.chain(*CHIPS.values())}


def test_chips_that_google_play_cannot_tell(artifact, compiler, tmp_path):
    cars, boards, laptops = ["SM8750", "SA8295"], ["MT8188"], ["PTL"]
    for chips in ({"qualcomm": cars}, {"mediatek": boards}, {"intel_openvino": laptops}):
        with pytest.raises(ValueError, match="AI packs are for the chips of phones"):
            android.save_ai_pack(artifact, chips, tmp_path / "packs")
    with pytest.raises(ValueError, match="`chips` must name at least one chip"):
        android.save_ai_pack(artifact, {}, tmp_path / "packs")
    for chips in ({"qualcomm": "SM8750"}, ["qualcomm"]):
        with pytest.raises(ValueError, match="`chips` must be lists of chips by vendor"):
            android.save_ai_pack(artifact, chips, tmp_path / "packs")
    assert not (tmp_path / "packs").exists()


def test_pack_of_an_sdk_that_is_not_installed(artifact, tmp_path):
    packages = "ai-edge-litert-sdk-qualcomm ai-edge-litert-sdk-google-tensor"
    chips = {"qualcomm": ["SM8750"], "google_tensor": ["Tensor_G5"]}
    with pytest.raises(ValueError, match=f"not compiled for SM8750, Tensor_G5: .*{packages}`"):
        android.save_ai_pack(artifact, chips, tmp_path / "packs")
    assert not (tmp_path / "packs").exists()

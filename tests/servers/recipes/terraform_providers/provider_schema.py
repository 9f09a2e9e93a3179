"""The schema of one of Google's Terraform providers, read from its npm bindings (`@cdktf/provider-google`, MPL-2.0).

`provider_schema.py PACKAGE_FOLDER PROVIDER_ADDRESS schema.json` writes what `terraform providers schema -json` would.
What the bindings do not say, such as which values an argument may have, is not in it.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

_ARGUMENTS: dict[str, Any] = {
    "string": "string",
    "number": "number",
    "boolean": "bool",
    "stringList": ["list", "string"],
    "numberList": ["list", "number"],
    "booleanList": ["list", "bool"],
    "stringMap": ["map", "string"],
    "numberMap": ["map", "number"],
    "booleanMap": ["map", "bool"],
    "stringListList": ["list", ["list", "string"]],
    "any": "dynamic",
    "anyMap": ["map", "dynamic"],
}
_RESULTS: dict[str, Any] = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
    "NumberList": ["list", "number"],
}
_ALSO_RESULTS = {"id", "project", "region", "zone"}

_INTERFACE = re.compile(r"export interface (\w+)[^{]*\{(.*?)^\}", re.DOTALL | re.MULTILINE)
_PROPERTY = re.compile(r"#(\w+) [\w#]+\}.*?\*/\s*readonly \w+(\??): [^;]*(?:\{[^}]*\})?[^;]*;", re.DOTALL)
_BODY = re.compile(
    r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}$|^    synthesizeHclAttributes\(\) \{\n(.*?)^    \}$",
    re.DOTALL | re.MULTILINE,
)
_ENTRY = re.compile(
    r"(\w+): \{\s*value: ([^\n]*),\s*isBlock: (\w+),\s*type: \"(\w+)\",\s*storageClassType: \"([^\"]*)\"", re.DOTALL
)
_CLASS = re.compile(r"^class (\w+) extends cdktf\.Terraform(Resource|DataSource|Provider)", re.MULTILINE)
_GETTER = re.compile(r"get \w+\(\) \{\s*return this\.get(\w+)Attribute\('(\w+)'\)")
_MAP_GETTER = re.compile(r"new cdktf\.(\w+)Map\(this, [\"'](\w+)[\"']\)")
_TYPE_NAME = re.compile(r"tfResourceType = [\"'](\w+)[\"']")


class _Binding:
    """One resource, data source or provider."""

    def __init__(self, folder: Path) -> None:
        self._code = (folder / "index.js").read_text(encoding="utf-8")
        types = (folder / "index.d.ts").read_text(encoding="utf-8")
        self._required = {
            found[1]: {one[1] for one in _PROPERTY.finditer(found[2]) if not one[2]}
            for found in _INTERFACE.finditer(types)
        }
        self._entries = {found[1] or "": _ENTRY.findall(found[2] or found[3]) for found in _BODY.finditer(self._code)}
        declared = _CLASS.search(self._code)
        assert declared is not None
        self._main, self.kind = declared[1], declared[2]
        self._methods = self._code[declared.start() :]
        named = _TYPE_NAME.search(self._code)
        self.name = named[1] if named else ""

    def schema(self) -> dict[str, Any]:
        block = self._block("", f"{self._main}Config", outermost=True)
        attributes = block["attributes"]
        for kind, name in _GETTER.findall(self._methods):
            if name not in attributes and name not in block["block_types"]:
                attributes[name] = {"type": _RESULTS.get(kind, "dynamic"), "computed": True}
        for kind, name in _MAP_GETTER.findall(self._methods):
            attributes.setdefault(name, {"type": ["map", _RESULTS.get(kind, "string")], "computed": True})
        return {"version": 0, "block": block}

    def _block(self, key: str, interface: str, outermost: bool = False) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        blocks: dict[str, Any] = {}
        for name, value, is_block, kind, stored in self._entries[key]:
            required = name in self._required.get(interface, ())
            if is_block == "true":
                blocks[name] = self._nested(name, value, kind, required, outermost)
                continue
            type_ = _ARGUMENTS.get(stored, "dynamic")
            if kind == "set" and isinstance(type_, list):
                type_ = ["set", type_[1]]
            also = {"computed": True} if outermost and name in _ALSO_RESULTS else {}
            attributes[name] = {"type": type_, **({"required": True} if required else {"optional": True, **also})}
        return {"attributes": attributes, "block_types": blocks}

    def _nested(self, name: str, value: str, kind: str, required: bool, outermost: bool) -> dict[str, Any]:
        called = re.search(r"(\w+)ToHclTerraform", value.replace("cdktf.listMapperHcl(", ""))
        assert called is not None
        interface = next(one for one in self._required if one[0].lower() + one[1:] == called[1])
        block = self._block(called[1], interface)
        if name == "timeouts" and outermost:
            return {"block": block, "nesting_mode": "single"}
        most = {} if "listMapperHcl" in value else {"max_items": 1}
        nesting = kind if kind in ("list", "set") else "list"
        return {"block": block, "nesting_mode": nesting, "min_items": int(required), **most}


def main(package: str, address: str, to: str) -> None:
    """Writes the schema of all that can be read; a few odd resources cannot, and are told."""
    found: dict[str, Any] = {"name": address, "provider": None, "resource_schemas": {}, "data_source_schemas": {}}
    for folder in sorted(Path(package, "lib").iterdir()):
        if not (folder / "index.d.ts").exists():
            continue
        try:
            binding = _Binding(folder)
            schema = binding.schema()
        except (AssertionError, KeyError, StopIteration) as error:
            print(f"{folder.name}: {error!r}", file=sys.stderr)
            continue
        if binding.kind == "Provider":
            found["provider"] = schema
        else:
            kind = "resource_schemas" if binding.kind == "Resource" else "data_source_schemas"
            found[kind][binding.name] = schema
    Path(to).write_text(json.dumps(found, separators=(",", ":")), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

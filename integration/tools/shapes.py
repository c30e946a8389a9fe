"""Writes src/protocol/shapes.txt from the message schemas in a kafka-clients jar.

Usage: python3 integration/tools/shapes.py kafka-clients.jar > src/protocol/shapes.txt

One line a request: API key, name, first flexible version, then its fields. A field is a kind with the versions that
carry it: b(1) w(2) i(4) l(8) u(16) bytes wide, s string, y bytes, [..] array, {..} struct, ?{..} nullable struct,
and @TAG: before a tagged field.
"""
import json
import re
import sys
import zipfile

KINDS = {"bool": "b", "int8": "b", "int16": "w", "uint16": "w", "int32": "i", "uint32": "i", "int64": "l",
         "float64": "l", "uuid": "u", "string": "s", "bytes": "y", "records": "y"}


def load(text):
    return json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))


def kind(type_name, field, commons):
    if type_name.startswith("[]"):
        return "[" + kind(type_name[2:], dict(field, nullableVersions="none"), commons) + "]"
    if type_name in KINDS:
        return KINDS[type_name]
    fields = field.get("fields") or commons[type_name]
    mark = "?" if field.get("nullableVersions", "none") != "none" else ""
    return mark + "{" + " ".join(shape(f, commons) for f in fields) + "}"


def shape(field, commons):
    tag = f"@{field['tag']}:" if "tag" in field else ""
    versions = field.get("taggedVersions") if tag else field["versions"]
    versions = versions.replace("+", "-")
    if re.fullmatch(r"\d+", versions):
        versions = f"{versions}-{versions}"
    return f"{tag}{versions}{kind(field['type'], field, commons)}"


rows = []
with zipfile.ZipFile(sys.argv[1]) as jar:
    for name in jar.namelist():
        if not (name.startswith("common/message/") and name.endswith("Request.json")):
            continue
        message = load(jar.read(name).decode())
        if "broker" not in message.get("listeners", []) or message["validVersions"] == "none":
            continue
        commons = {s["name"]: s["fields"] for s in message.get("commonStructs", [])}
        flexible = message["flexibleVersions"].rstrip("+")
        flexible = "none" if flexible == "none" else flexible.split("-")[0]
        fields = " ".join(shape(f, commons) for f in message["fields"] if f["versions"] != "none")
        rows.append((message["apiKey"], message["name"].removesuffix("Request"), flexible, fields))
for row in sorted(rows):
    print(*row)

# SPDX-License-Identifier: Apache-2.0
"""Container images from files, in the form that `ctr images import` reads."""
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile


def libraries(program, but):
    """What the dynamic linker would load with a program."""
    said = subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    return [path for path in re.findall(r"(/\S+) \(0x", said) if not any(word in path for word in but)]


def add(archive, name, data, mode=0o644, kind=tarfile.REGTYPE):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.type = len(data), mode, kind
    archive.addfile(entry, io.BytesIO(data))


def layer(files, folders):
    """{path: path on this machine} as the bytes of a layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, mode in sorted(folders.items()):
            add(archive, name.strip("/"), b"", mode, tarfile.DIRTYPE)
        for name, source in sorted(files.items()):
            with open(source, "rb") as data:
                add(archive, name.strip("/"), data.read(), 0o755)
    return out.getvalue()


def write(path, reference, files, command, folders=None):
    """An image called `reference` into the file `path`."""
    content = layer(files, folders or {})
    digest = hashlib.sha256(content).hexdigest()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps({"architecture": machine, "os": "linux", "config": {"Cmd": command, "Env": ["PATH=/bin"]},
                         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]}}).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": [digest + "/layer.tar"]}]).encode()
    with tarfile.open(path, "w") as archive:
        add(archive, digest + "/layer.tar", content)
        add(archive, name, config)
        add(archive, "manifest.json", manifest)
    return os.path.getsize(path)

# SPDX-License-Identifier: Apache-2.0
"""What the tests of deploy/ and of examples' manifests share: packages from the registry, and Kubernetes' schemas."""
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VERSION = "1.36"  # of Kubernetes: the first whose MutatingAdmissionPolicy is admissionregistration.k8s.io/v1


def packages(name, *requirements):
    """Have Python packages that are fetched into build/ found; ends the test as skipped where they cannot be had."""
    done = subprocess.run([os.path.join(ROOT, "scripts", "python-packages"), name, *requirements], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        print("%s cannot be had: %s" % (" ".join(requirements), (done.stderr.strip().splitlines() or ["?"])[-1]))
        sys.exit(77)
    sys.path.insert(0, done.stdout.strip())


packages("deploy", "cel-python==0.5.0", "kubernetes-validate==1.37.0")
import kubernetes_validate  # noqa: E402


def complaints(document):
    """What Kubernetes' schema has against a manifest, a key that it does not know among it."""
    try:
        kubernetes_validate.validate(document, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return ["%s: %s: %s" % (document.get("metadata", {}).get("name"), "/".join(str(part) for part in error.path), error.message[:300])]
    except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
        return ["%s: %s" % (document.get("kind"), error.message)]
    return []

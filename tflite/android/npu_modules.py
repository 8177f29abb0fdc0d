"""Gradle modules that bring the runtime libraries of vendors' NPUs into an app."""

import dataclasses
import re

from keras_distill.tflite import names


@dataclasses.dataclass(frozen=True)
class _Runtime:
    """What a vendor's NPU needs in an app.

    Attributes:
        group: How the names of the vendor's groups of devices begin.
        package: What LiteRT publishes: its plugins, under `com.google.ai.edge.litert`.
        own: What the vendor's SDK has beside it, for the module's `src/main/jniLibs/arm64-v8a`.
    """

    group: str
    package: str | None
    own: str


_RUNTIMES = {
    "qualcomm": _Runtime(
        "Qualcomm_",
        "litert-npu-runtime-qualcomm",
        "libQnnHtp.so, libQnnSystem.so, libQnnHtpV*Stub.so and libQnnHtpV*Skel.so\n"
        "// of the chips' Hexagon versions, from Qualcomm's AI Runtime SDK",
    ),
    "mediatek": _Runtime(
        "Mediatek_",
        "litert-npu-runtime-mediatek",
        "what MediaTek's NeuroPilot SDK names for the chips",
    ),
    "google_tensor": _Runtime(
        "Google_",
        "litert-npu-runtime-google-tensor",
        "what Google's Tensor SDK names for the chips, if anything",
    ),
    "samsung": _Runtime(
        "Samsung_",
        None,
        "libLiteRtDispatch_Samsung.so, from LiteRT's archive of NPU libraries (there\n"
        "// is no package), and what Samsung's SDK names",
    ),
}

_GRADLE = """\
plugins {
    id("com.android.dynamic-feature")
}

// Not run. Put into src/main/jniLibs/arm64-v8a: @OWN@.
android {
    namespace = "com.example.npu_@VENDOR@"
    compileSdk = 35

    defaultConfig {
        minSdk = 31
        ndk { abiFilters += "arm64-v8a" }
    }
}

dependencies {
    implementation(project(":app"))
@PACKAGE@}
"""

#: The version is that of LiteRT in the app, `litert` of the kit's `dependencies.gradle.kts`.
_PACKAGE = '    implementation("com.google.ai.edge.litert:@PACKAGE@:2.3.0")\n'

_MANIFEST = """\
<manifest xmlns:android="http://schemas.android.com/apk/res/android"
    xmlns:dist="http://schemas.android.com/apk/distribution">
    <dist:module dist:title="@string/npu_@VENDOR@">
        <dist:delivery>
            <dist:install-time>
                <dist:conditions>
                    <dist:device-groups>
@GROUPS@
                    </dist:device-groups>
                </dist:conditions>
            </dist:install-time>
        </dist:delivery>
        <dist:fusing dist:include="false" />
    </dist:module>
</manifest>
"""


def files(targeting: str) -> dict[str, str]:
    """A feature module for each vendor, which only phones with its chips are given.

    Args:
        targeting: `device_targeting_configuration.xml`, which has a group for each chip.

    Returns:
        Files by relative path: `npu_<vendor>/...`, and `npu_strings.xml` for the app's resources.
    """
    found: dict[str, str] = {}
    groups = re.findall(r'device-group name="(.*?)"', targeting)
    vendors = {v: [g for g in groups if g.startswith(r.group)] for v, r in _RUNTIMES.items()}
    vendors = {vendor: own for vendor, own in vendors.items() if own}
    for vendor, own in vendors.items():
        runtime = _RUNTIMES[vendor]
        package = _PACKAGE.replace("@PACKAGE@", runtime.package) if runtime.package else ""
        gradle = _GRADLE.replace("@VENDOR@", vendor).replace("@OWN@", runtime.own)
        found[f"npu_{vendor}/build.gradle.kts"] = gradle.replace("@PACKAGE@", package)
        rows = "\n".join(f'{" " * 24}<dist:device-group dist:name="{group}" />' for group in own)
        manifest = _MANIFEST.replace("@VENDOR@", vendor).replace("@GROUPS@", rows)
        found[f"npu_{vendor}/src/main/AndroidManifest.xml"] = manifest
    strings = "".join(f'    <string name="npu_{v}">NPU of {v}</string>\n' for v in vendors)
    found["npu_strings.xml"] = f"<resources>\n{strings}</resources>\n"
    return found


def lines(made: dict[str, str], folder: str) -> dict[str, str]:
    """What the README says of the modules.

    Args:
        made: What `files` returned.
        folder: Where the modules are in the app's project.
    """
    modules = sorted(path.split("/")[0] for path in made if path.endswith(".kts"))
    paths = [names.kotlin_string(f":{folder}:{module}") for module in modules]
    return {"MODULES": ", ".join(paths)}

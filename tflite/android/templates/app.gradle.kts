// Add to the build script of the app's module. LiteRT 2.3 needs Android 7 (API 24): with less, the
// manifest merger stops.
android {
    defaultConfig { minSdk = 24 }
    // Models are mapped into memory: they must not be compressed.
    androidResources { noCompress += "tflite" }
}

dependencies {
    implementation("com.google.ai.edge.litert:litert:2.3.0")
    // The GPU's accelerator. An app that never asks for the GPU can do without.
    implementation("com.google.ai.edge.litert:litert-gpu:2.3.0")
}

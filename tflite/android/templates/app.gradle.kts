// Add to the build script of the app's module. LiteRT needs Android 6 (API 23).
android {
    defaultConfig { minSdk = 23 }
    // Models are mapped into memory: they must not be compressed.
    androidResources { noCompress += "tflite" }
}

dependencies {
    implementation("com.google.ai.edge.litert:litert:2.1.0")
}

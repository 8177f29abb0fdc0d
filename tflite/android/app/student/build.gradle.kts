plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

// `gradle :student:assembleRelease` writes build/outputs/aar/student-release.aar.
android {
    namespace = "@PACKAGE@"
    compileSdk = 35

    defaultConfig {
        // LiteRT 2.3 needs Android 7.
        minSdk = 24
        consumerProguardFiles("consumer-rules.pro")
    }

    // Models are mapped into memory: they must not be compressed.
    androidResources { noCompress += "tflite" }

    sourceSets["main"].kotlin.srcDir("src/main/kotlin")
    sourceSets["test"].kotlin.srcDir("src/test/kotlin")
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    api("com.google.ai.edge.litert:litert:2.3.0")
    // The GPU's accelerator. An app that never asks for the GPU can do without.
    implementation("com.google.ai.edge.litert:litert-gpu:2.3.0")
    testImplementation("junit:junit:4.13.2")
}

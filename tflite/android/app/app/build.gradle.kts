plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "@PACKAGE@.sample"
    compileSdk = 35

    defaultConfig {
        applicationId = "@PACKAGE@.sample"
        // LiteRT 2.3 needs Android 7.
        minSdk = 24
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
    }

    // Models are mapped into memory: they must not be compressed.
    androidResources { noCompress += "tflite" }

    sourceSets["main"].kotlin.srcDir("src/main/kotlin")
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    kotlinOptions { jvmTarget = "17" }
}

dependencies {
    implementation(project(":student"))
}

// Listens to a PDM microphone (Nano 33 BLE Sense, Portenta, RP2040 Connect), and prints what @NAME@
// detects. By the first header Arduino finds TFLite Micro: put the name of your library's there.
#include <Chirale_TensorFlowLite.h>
#include <PDM.h>

#include "@NAME@_listener.h"

namespace {

@NAME@::Listener listener;
constexpr int kStep = @NAME@::Listener::kStep;
constexpr int kBuffer = 8 * kStep;

// Filled by the microphone's interrupt.
int16_t buffer[kBuffer];
volatile int place = 0;
volatile int waiting = 0;
bool started = false;

void Receive() {
  static int16_t chunk[256];
  int bytes = PDM.available();
  while (bytes > 0) {
    const int wanted = bytes < static_cast<int>(sizeof(chunk)) ? bytes : static_cast<int>(sizeof(chunk));
    const int got = PDM.read(chunk, wanted);
    if (got <= 0) return;
    for (int i = 0; i < got / 2; ++i) {
      buffer[place] = chunk[i];
      place = (place + 1) % kBuffer;
    }
    waiting = waiting + got / 2;
    bytes -= got;
  }
}

}  // namespace

void setup() {
  Serial.begin(115200);
  if (!listener.Start(@NAME@::Listener::kSampleRate)) {
    Serial.println("the interpreter did not start");
    return;
  }
  PDM.onReceive(Receive);
  started = PDM.begin(1, @NAME@::Listener::kSampleRate) != 0;
  if (!started) Serial.println("the microphone did not start at this sample rate");
}

void loop() {
  if (!started || waiting < kStep) return;
  static int16_t samples[kStep];
  noInterrupts();
  const bool lost = waiting > kBuffer;
  const int first = (place - (lost ? kStep : waiting % kBuffer) + kBuffer) % kBuffer;
  for (int i = 0; i < kStep; ++i) samples[i] = buffer[(first + i) % kBuffer];
  waiting = lost ? 0 : waiting - kStep;
  interrupts();
  if (lost) {
    Serial.println("samples were lost: the model takes longer than the sound lasts");
    listener.Reset();
  }
  const int word = listener.Hear(samples);
  if (word == @NAME@::Listener::kFailed) {
    Serial.println("the model failed to run");
  } else if (word >= 0) {
    Serial.println(word);
  }
}

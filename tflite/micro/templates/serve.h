// Answers `keras-distill prove`: takes inputs, runs the file and gives outputs, over any stream of
// characters, such as a serial port. Everything is in lines; what the board prints besides stays
// apart, since each answer begins with "kd! ".
#ifndef @GUARD@_SERVE_H_
#define @GUARD@_SERVE_H_

#include <cstddef>
#include <cstdint>

#include "@NAME@.h"
#include "@NAME@_model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"

namespace @NAME@ {

class Server {
 public:
  // Sends a character to the host.
  using Send = void (*)(char);
  // The time in microseconds. It may overflow.
  using Clock = std::uint32_t (*)();

  Server(tflite::MicroInterpreter& interpreter, Send send, Clock clock)
      : interpreter_(interpreter), send_(send), clock_(clock) {}

  // Takes a character from the host; answers where it ends a line.
  void Take(char character) {
    if (character == '\r') return;
    if (character != '\n') {
      if (length_ < kLine) line_[length_] = character;
      if (length_ <= kLine) ++length_;
      return;
    }
    const std::size_t length = length_;
    length_ = 0;
    if (length > kLine) return Say("kd! error: the line is too long\n");
    at_ = line_;
    end_ = line_ + length;
    Answer();
  }

 private:
  static constexpr std::size_t kLine = 128;

  // Bytes of an input or output, 0 where there is no such one. The tables are in functions, since
  // before C++17 an array in a class has no place to be read from.
  static std::size_t InputBytes(std::size_t index) {
    static constexpr std::size_t kBytes[] = {@INPUT_BYTES@};
    return index < sizeof(kBytes) / sizeof(kBytes[0]) ? kBytes[index] : 0;
  }

  static std::size_t OutputBytes(std::size_t index) {
    static constexpr std::size_t kBytes[] = {@OUTPUT_BYTES@};
    return index < sizeof(kBytes) / sizeof(kBytes[0]) ? kBytes[index] : 0;
  }

  void Answer() {
    // What isn't for this program, such as noise while a port is opened, is left alone.
    if (!Next("kd? ")) return;
    if (Next("hello")) return Hello();
    if (Next("reset")) return Reset();
    if (Next("input ")) return Input();
    if (Next("run")) return Run();
    if (Next("output ")) return Output();
    Say("kd! error: no such command\n");
  }

  void Hello() {
    std::uint32_t check = 0;
    for (std::size_t i = 0; i < kModelSize; ++i) check = Checked(check, kModel[i]);
    Say("kd! hello ");
    Hex(check, 8);
    Number(interpreter_.arena_used_bytes());
    Number(kArenaSize);
    Say("\n");
  }

  // Forgets the state of recurrent operators.
  void Reset() {
    Say(interpreter_.Reset() == kTfLiteOk ? "kd! ok\n" : "kd! error: the reset failed\n");
  }

  // input INDEX OFFSET BYTES CHECK
  void Input() {
    const std::size_t index = Decimal(), offset = Decimal(), size = InputBytes(index);
    char* const bytes =
        size > 0 ? reinterpret_cast<char*>(interpreter_.input(index)->data.raw) : nullptr;
    std::uint32_t check = 0;
    std::size_t place = offset;
    for (; at_ + 1 < end_ && *at_ != ' '; at_ += 2, ++place) {
      if (place >= size) return Say("kd! error: no such place\n");
      const int byte = 16 * Digit(at_[0]) + Digit(at_[1]);
      bytes[place] = static_cast<char>(byte);
      check = Checked(check, static_cast<unsigned char>(byte));
    }
    if (at_ < end_) ++at_;
    std::uint32_t sent = 0;
    for (; at_ < end_; ++at_) sent = 16 * sent + static_cast<std::uint32_t>(Digit(*at_));
    Say(sent == check ? "kd! ok\n" : "kd! error: the bytes arrived with errors\n");
  }

  void Run() {
    const std::uint32_t start = clock_();
    const TfLiteStatus status = interpreter_.Invoke();
    const std::uint32_t stop = clock_();
    if (status != kTfLiteOk) return Say("kd! error: the model failed to run\n");
    Say("kd! ran");
    Number(stop - start);
    Say("\n");
  }

  // output INDEX OFFSET COUNT
  void Output() {
    const std::size_t index = Decimal(), offset = Decimal(), count = Decimal();
    const std::size_t size = OutputBytes(index);
    if (size == 0 || offset + count > size) return Say("kd! error: no such place\n");
    const char* const bytes = reinterpret_cast<const char*>(interpreter_.output(index)->data.raw);
    std::uint32_t check = 0;
    Say("kd! bytes ");
    for (std::size_t i = offset; i < offset + count; ++i) {
      const unsigned char byte = static_cast<unsigned char>(bytes[i]);
      Hex(byte, 2);
      check = Checked(check, byte);
    }
    Say(" ");
    Hex(check, 8);
    Say("\n");
  }

  // CRC-32, as zlib's, byte by byte.
  static std::uint32_t Checked(std::uint32_t check, unsigned char byte) {
    check = ~check ^ byte;
    for (int bit = 0; bit < 8; ++bit) check = check >> 1 ^ (check & 1 ? 0xEDB88320u : 0u);
    return ~check;
  }

  static int Digit(char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; }

  bool Next(const char* word) {
    const char* at = at_;
    for (; *word != 0; ++word, ++at) {
      if (at == end_ || *at != *word) return false;
    }
    at_ = at;
    return true;
  }

  std::size_t Decimal() {
    std::size_t value = 0;
    for (; at_ < end_ && *at_ != ' '; ++at_) value = 10 * value + static_cast<std::size_t>(Digit(*at_));
    if (at_ < end_) ++at_;
    return value;
  }

  void Say(const char* text) {
    for (; *text != 0; ++text) send_(*text);
  }

  void Hex(std::uint32_t value, int digits) {
    while (digits-- > 0) send_("0123456789abcdef"[value >> 4 * digits & 15]);
  }

  void Number(std::size_t value) {
    char digits[20];
    int count = 0;
    do {
      digits[count++] = static_cast<char>('0' + value % 10);
      value /= 10;
    } while (value != 0);
    send_(' ');
    while (count-- > 0) send_(digits[count]);
  }

  tflite::MicroInterpreter& interpreter_;
  const Send send_;
  const Clock clock_;
  char line_[kLine];
  std::size_t length_ = 0;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
};

}  // namespace @NAME@

#endif  // @GUARD@_SERVE_H_

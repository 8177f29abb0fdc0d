// What stands for Arduino and its PDM library.
#pragma once
#include <cstddef>
#include <cstdint>
struct {
  void begin(int) {}
  template <class T>
  void println(T) {}
} Serial;
inline void noInterrupts() {}
inline void interrupts() {}
struct {
  void onReceive(void (*)()) {}
  int begin(int, int) { return 1; }
  int available() { return 0; }
  int read(void*, std::size_t) { return 0; }
} PDM;

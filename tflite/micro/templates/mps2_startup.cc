// The least that a Cortex-M needs to reach main(): vectors, memory, the floating-point unit.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

// The timer that counts down once for each 40 instructions where QEMU's take 1 ns each.
volatile std::uint32_t* const kTimer = reinterpret_cast<volatile std::uint32_t*>(0xE000E010);
constexpr std::uint32_t kTop = 0xFFFFFF;

}  // namespace

extern "C" {
extern std::uint32_t __data_load__, __data_start__, __data_end__, __bss_start__, __bss_end__,
    __stack;
extern void (*__init_array_start[])();
extern void (*__init_array_end[])();
void initialise_monitor_handles();
int main();

void Reset_Handler() {
  *reinterpret_cast<volatile std::uint32_t*>(0xE000ED88) |= 0xFu << 20;
  std::uint32_t* from = &__data_load__;
  for (std::uint32_t* to = &__data_start__; to < &__data_end__; ++to, ++from) *to = *from;
  for (std::uint32_t* to = &__bss_start__; to < &__bss_end__; ++to) *to = 0;
#ifdef PRINTS
  initialise_monitor_handles();
#endif
  for (auto function = __init_array_start; function < __init_array_end; ++function) (*function)();
  kTimer[1] = kTop;
  kTimer[2] = 0;
  kTimer[0] = 5;
  const int result = main();
#ifdef PRINTS
  const unsigned long ticks = kTop - kTimer[2];
  std::printf("instructions: %lu\n", 40 * ticks);
  std::exit(result);
#else
  for (volatile int status = result;;) static_cast<void>(status);
#endif
}

void Default_Handler() {
#ifdef PRINTS
  std::exit(99);
#endif
  for (;;) {
  }
}

// What the C library refers to, for objects that are destroyed at the end.
void* __dso_handle = nullptr;
void _init() {}
void _fini() {}

__attribute__((section(".vectors"), used)) void* const vectors[16] = {
    &__stack,
    reinterpret_cast<void*>(Reset_Handler),
    reinterpret_cast<void*>(Default_Handler),
    reinterpret_cast<void*>(Default_Handler),
    reinterpret_cast<void*>(Default_Handler),
    reinterpret_cast<void*>(Default_Handler),
    reinterpret_cast<void*>(Default_Handler),
};
}

// Listens to a PDM microphone with ESP-IDF 5, and prints what @NAME@ detects.
#include <cstdio>

#include "@NAME@_listener.h"
#include "driver/i2s_pdm.h"

namespace {

// The pins of your board; these are those of Seeed's XIAO ESP32S3 Sense.
constexpr gpio_num_t kClock = GPIO_NUM_42;
constexpr gpio_num_t kData = GPIO_NUM_41;

@NAME@::Listener listener;

bool StartMicrophone(i2s_chan_handle_t* channel) {
  const i2s_chan_config_t wanted = I2S_CHANNEL_DEFAULT_CONFIG(I2S_NUM_AUTO, I2S_ROLE_MASTER);
  if (i2s_new_channel(&wanted, nullptr, channel) != ESP_OK) return false;
  i2s_pdm_rx_config_t config = {};
  config.clk_cfg = I2S_PDM_RX_CLK_DEFAULT_CONFIG(@NAME@::Listener::kSampleRate);
  config.slot_cfg =
      I2S_PDM_RX_SLOT_DEFAULT_CONFIG(I2S_DATA_BIT_WIDTH_16BIT, I2S_SLOT_MODE_MONO);
  config.gpio_cfg.clk = kClock;
  config.gpio_cfg.din = kData;
  return i2s_channel_init_pdm_rx_mode(*channel, &config) == ESP_OK &&
         i2s_channel_enable(*channel) == ESP_OK;
}

}  // namespace

extern "C" void app_main() {
  i2s_chan_handle_t channel = nullptr;
  if (!listener.Start(@NAME@::Listener::kSampleRate) || !StartMicrophone(&channel)) {
    std::printf("model or microphone did not start\n");
    return;
  }
  static std::int16_t samples[@NAME@::Listener::kStep];
  std::size_t bytes = 0;
  // Waits for each step. The channel's own buffers bridge the time that the model takes.
  while (i2s_channel_read(channel, samples, sizeof(samples), &bytes, portMAX_DELAY) == ESP_OK) {
    if (bytes != sizeof(samples)) continue;
    const int word = listener.Hear(samples);
    if (word != @NAME@::Listener::kNothing) std::printf("%d\n", word);
  }
  std::printf("the microphone stopped\n");
}

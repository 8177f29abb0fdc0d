// What stands for ESP-IDF's driver of PDM microphones.
#pragma once
#include <cstddef>
#include <cstdint>
typedef int esp_err_t;
#define ESP_OK 0
#define portMAX_DELAY 0xffffffffu
typedef enum { GPIO_NUM_41 = 41, GPIO_NUM_42 = 42 } gpio_num_t;
typedef struct i2s_channel_obj_t* i2s_chan_handle_t;
enum { I2S_NUM_AUTO, I2S_ROLE_MASTER, I2S_DATA_BIT_WIDTH_16BIT = 16, I2S_SLOT_MODE_MONO = 1 };
typedef struct { int id, role; } i2s_chan_config_t;
typedef struct { std::uint32_t sample_rate_hz; } i2s_pdm_rx_clk_config_t;
typedef struct { int data_bit_width, slot_mode; } i2s_pdm_rx_slot_config_t;
typedef struct { gpio_num_t clk, din; } i2s_pdm_rx_gpio_config_t;
typedef struct {
  i2s_pdm_rx_clk_config_t clk_cfg;
  i2s_pdm_rx_slot_config_t slot_cfg;
  i2s_pdm_rx_gpio_config_t gpio_cfg;
} i2s_pdm_rx_config_t;
#define I2S_CHANNEL_DEFAULT_CONFIG(id, role) {id, role}
#define I2S_PDM_RX_CLK_DEFAULT_CONFIG(rate) {static_cast<std::uint32_t>(rate)}
#define I2S_PDM_RX_SLOT_DEFAULT_CONFIG(bits, mode) {bits, mode}
inline esp_err_t i2s_new_channel(const i2s_chan_config_t*, i2s_chan_handle_t*, i2s_chan_handle_t*) {
  return ESP_OK;
}
inline esp_err_t i2s_channel_init_pdm_rx_mode(i2s_chan_handle_t, const i2s_pdm_rx_config_t*) {
  return ESP_OK;
}
inline esp_err_t i2s_channel_enable(i2s_chan_handle_t) { return ESP_OK; }
inline esp_err_t i2s_channel_read(i2s_chan_handle_t, void*, std::size_t, std::size_t*,
                                  std::uint32_t) {
  return 1;
}

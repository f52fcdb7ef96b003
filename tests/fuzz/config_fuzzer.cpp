#include <cstddef>
#include <cstdint>
#include <string_view>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/model/model_config.hpp"

using namespace proviso::model;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    read_hugging_face_config({reinterpret_cast<const char*>(data), size}, "config.json");
  } catch (const InputError&) {
  }
  return 0;
}

#include <vector>

#include "runtime/formats/safetensors.hpp"
#include "tests/fuzz/bytes_as_file.hpp"

using namespace proviso::model;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const proviso::test::BytesAsFile input(data, size);
  try {
    for (const StoredTensor& tensor : read_safetensors(input.path()).tensors) {
      std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
      dequantize(tensor, values);
    }
  } catch (const InputError&) {
  }
  return 0;
}

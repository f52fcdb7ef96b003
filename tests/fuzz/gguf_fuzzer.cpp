#include <vector>

#include "runtime/formats/gguf.hpp"
#include "runtime/model/model_config.hpp"
#include "tests/fuzz/bytes_as_file.hpp"

using namespace proviso::model;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const proviso::test::BytesAsFile input(data, size);
  try {
    const GgufFile file = read_gguf(input.path());
    for (const StoredTensor& tensor : file.tensors) {
      std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
      dequantize(tensor, values);
    }
    read_gguf_config(file, "input.gguf");
  } catch (const InputError&) {
  }
  return 0;
}

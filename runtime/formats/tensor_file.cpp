#include "runtime/formats/tensor_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

namespace proviso::model {

static_assert(std::endian::native == std::endian::little, "tensor files are little-endian and mapped as they are");

namespace {

struct Layout {
  std::string_view text;
  std::size_t block_elements;
  std::size_t block_bytes;
};

constexpr std::array kLayouts = {
#define PROVISO_ELEMENT_TYPE(type, text, ggml_id, block_elements, block_bytes) \
  Layout{text, block_elements, block_bytes},
#include "runtime/formats/element_types.def"
#undef PROVISO_ELEMENT_TYPE
};

const Layout& layout(ElementType type) { return kLayouts[static_cast<std::size_t>(type)]; }

[[noreturn]] void throw_cannot_open(const std::string& path, int error) {
  const std::string message = path + ": cannot be read: " + std::strerror(error);
  if (error == ENOENT || error == ENOTDIR) throw InputError(message + "; check the path");
  if (error == EACCES || error == EPERM) throw InputError(message + "; make the file readable");
  throw MachineError(message);
}

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  // Non-blocking, so that a named pipe is refused below instead of waiting for a writer.
  const Descriptor descriptor{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (descriptor.value < 0) throw_cannot_open(path, errno);
  struct stat status {};
  if (::fstat(descriptor.value, &status) != 0) throw_cannot_open(path, errno);
  if (!S_ISREG(status.st_mode)) throw InputError(path + ": is not a file");
  const auto size = static_cast<std::size_t>(status.st_size);
  const std::byte* data = nullptr;
  if (size > 0) {
    void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor.value, 0);
    if (mapped == MAP_FAILED) throw_cannot_open(path, errno);
    data = static_cast<const std::byte*>(mapped);
  }
  return std::shared_ptr<const MappedFile>(new MappedFile(path, data, size));
}

MappedFile::MappedFile(std::string path, const std::byte* data, std::size_t size)
    : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::string_view element_type_name(ElementType type) { return layout(type).text; }

std::optional<ElementType> element_type_from_name(std::string_view name) {
  const auto found = std::ranges::find(kLayouts, name, &Layout::text);
  if (found == kLayouts.end()) return std::nullopt;
  return static_cast<ElementType>(found - kLayouts.begin());
}

std::size_t block_elements(ElementType type) { return layout(type).block_elements; }

std::size_t stored_bytes(ElementType type, std::size_t elements) {
  const Layout& of = layout(type);
  if (elements % of.block_elements != 0) {
    throw InputError(std::to_string(elements) + " elements do not fill whole blocks of " + std::string(of.text) + " (" +
                     std::to_string(of.block_elements) + " each)");
  }
  std::size_t bytes = 0;
  if (__builtin_mul_overflow(elements / of.block_elements, of.block_bytes, &bytes)) {
    throw InputError(std::to_string(elements) + " elements are more than any machine holds");
  }
  return bytes;
}

std::optional<std::int64_t> element_count(std::span<const std::int64_t> shape) {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(product, size, &product)) return std::nullopt;
  }
  return product;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

std::int64_t StoredTensor::elements() const { return element_count(shape).value(); }

}  // namespace proviso::model

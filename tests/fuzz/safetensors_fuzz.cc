// Whatever the bytes, SafetensorsFile either refuses them with a reason, or hands out views that
// tile the data exactly.
#include <algorithm>

#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "model/safetensors.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/unit/model/safetensors_writer.h"

namespace lorad {
namespace {

// Accepted: every view lies in the file, is as big as its shape says, and all of them together are
// the data.
void CheckPromises(const SafetensorsFile& file) {
  uint64_t total = 0;
  std::vector<const TensorView*> by_address;
  for (const TensorView& tensor : file.tensors()) {
    LORAD_CHECK(file.Find(tensor.name) == &tensor);
    LORAD_CHECK(!tensor.data.empty());
    LORAD_CHECK(tensor.data.data() >= file.bytes().data());
    LORAD_CHECK(tensor.data.data() + tensor.data.size() <=
                file.bytes().data() + file.bytes().size());
    uint64_t count = 1;
    for (const int64_t size : tensor.shape) {
      LORAD_CHECK(size > 0);
      count *= static_cast<uint64_t>(size);
    }
    LORAD_CHECK(tensor.shape.size() <= 4);
    if (tensor.dtype.has_value()) {
      LORAD_CHECK(tensor.data.size() == count * kernels::SizeOf(*tensor.dtype));
      if (tensor.shape.size() == 1) LORAD_CHECK(AsVector(tensor, tensor.shape[0]).ok());
    }
    total += tensor.data.size();
    by_address.push_back(&tensor);
  }
  std::sort(by_address.begin(), by_address.end(),
            [](const auto* a, const auto* b) { return a->data.data() < b->data.data(); });
  for (size_t i = 1; i < by_address.size(); ++i) {
    const auto before = by_address[i - 1]->data;
    LORAD_CHECK(before.data() + before.size() == by_address[i]->data.data());
  }
  LORAD_CHECK(total < file.bytes().size());
  if (!by_address.empty()) {
    const auto back = by_address.back()->data;
    LORAD_CHECK(back.data() + back.size() == file.bytes().data() + file.bytes().size());
  }
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {SafetensorsBytes("{}", ""),
          SafetensorsBytes({FilledTensor("a", {2, 3}, 1),
                            {"b", "BF16", {4}, std::string(8, 'b')},
                            {"c", "I64", {1}, std::string(8, 'c')}},
                           R"({"format":"pt"})"),
          SafetensorsBytes({{"h", "F16", {2, 1, 2}, std::string(8, 'h')},
                            {"s", "F32", {}, "ssss"},
                            {"f8", "F8_E4M3", {3}, "fff"}}),
          SafetensorsBytes({{"u", "U8", {1}, "u"}, {"v", "U8", {1}, "v"}})};
}

std::vector<std::string> FuzzDictionary() {
  return {"\"dtype\":\"F32\"",
          "\"shape\":[0]",
          "\"shape\":[]",
          "\"data_offsets\":[0,0]",
          "\"__metadata__\":{}",
          ",\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}",
          "[[[[[[",
          "{\"a\":",
          "\\u0000",
          "\xef\xbb\xbf",
          "\"F4\"",
          "\"BOOL\"",
          "null",
          "}",
          " "};
}

}  // namespace lorad

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly this size, so that a sanitizer sees a read past its end.
  const std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(data),
                                     reinterpret_cast<const std::byte*>(data) + size);
  const auto file = lorad::SafetensorsFile::FromBytes(bytes, {.max_dimensions = 4});
  if (file.ok()) {
    lorad::CheckPromises(*file);
    return lorad::kFuzzAccepted;
  }
  LORAD_CHECK(lorad::GetErrorDetail(file.status()).reason == "SAFETENSORS_INVALID");
  return lorad::kFuzzRefused;
}

#include "model/rope_frequencies.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>
#include <string_view>

namespace lorad {
namespace {

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;

// The fields that every rope type shares: theta, and proof that the whole head is rotated.
void ReadCommon(JsonFields& fields, RopeParameters& rope) {
  rope.theta = fields.Number("rope_theta", 1.0, kMaxTheta, rope.theta);
  if (fields.Number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0) {
    fields.Unsupported("partial_rotary_factor", "must be 1");
  }
}

void ReadType(JsonFields& fields, int max_positions, RopeParameters& rope) {
  const char* const type_field = fields.Has("rope_type") ? "rope_type" : "type";
  const std::string type = fields.String(type_field, "default");
  fields.Ignore("type");  // older files have both
  // Only llama3 reads it; other types carry it along at times.
  const double original =
      fields.Number("original_max_position_embeddings", 1.0, 1e9, max_positions);
  if (type == "default") return;
  if (type == "linear") {
    rope.type = RopeType::kLinear;
    rope.factor = fields.Number("factor", 1.0, kMaxFactor);
    return;
  }
  if (type != "llama3") {
    fields.Unsupported(type_field, fmt::format("\"{}\" is none of default, linear, llama3", type));
    return;
  }
  rope.type = RopeType::kLlama3;
  rope.factor = fields.Number("factor", 1.0, kMaxFactor);
  rope.low_freq_factor = fields.Number("low_freq_factor", 1e-6, kMaxFactor);
  rope.high_freq_factor = fields.Number("high_freq_factor", 1e-6, kMaxFactor);
  rope.original_max_positions = original;
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    fields.Invalid("high_freq_factor", "must be above low_freq_factor");
  }
}

float Llama3Frequency(const RopeParameters& rope, float inv_freq) {
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto original = static_cast<float>(rope.original_max_positions);
  // A number divided by a tensor is its reciprocal times the number there: two roundings.
  const float wavelength = (1.0f / inv_freq) * static_cast<float>(2 * std::numbers::pi);
  if (wavelength > static_cast<float>(rope.original_max_positions / rope.low_freq_factor)) {
    return inv_freq / factor;
  }
  if (wavelength < static_cast<float>(rope.original_max_positions / rope.high_freq_factor)) {
    return inv_freq;
  }
  const float smooth = ((1.0f / wavelength) * original - low) /
                       static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  return (1.0f - smooth) * inv_freq / factor + smooth * inv_freq;
}

}  // namespace

RopeParameters ReadRopeParameters(JsonFields& fields, int max_positions) {
  RopeParameters rope;
  ReadCommon(fields, rope);
  const JsonValue* scaling = fields.Get("rope_scaling");
  const JsonValue* parameters = fields.Get("rope_parameters");
  const bool scaled = scaling != nullptr && !scaling->IsOff();
  if (scaled && parameters != nullptr && !parameters->IsOff()) {
    fields.Invalid("rope_scaling", "is set together with rope_parameters");
    return rope;
  }
  const JsonValue* chosen = scaled ? scaling : parameters;
  if (chosen == nullptr || chosen->IsOff()) return rope;
  JsonFields nested(*chosen, scaled ? "rope_scaling." : "rope_parameters.");
  ReadCommon(nested, rope);
  ReadType(nested, max_positions, rope);
  fields.Adopt(std::move(nested));
  return rope;
}

std::vector<float> InverseFrequencies(const RopeParameters& rope, int head_dim) {
  std::vector<float> result(static_cast<size_t>(head_dim / 2));
  const auto theta = static_cast<float>(rope.theta);
  for (size_t i = 0; i < result.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const float inv_freq = 1.0f / std::pow(theta, exponent);
    switch (rope.type) {
      case RopeType::kDefault:
        result[i] = inv_freq;
        break;
      case RopeType::kLinear:
        result[i] = inv_freq / static_cast<float>(rope.factor);
        break;
      case RopeType::kLlama3:
        result[i] = Llama3Frequency(rope, inv_freq);
        break;
    }
  }
  return result;
}

}  // namespace lorad

#include "model/tokenizer/sentencepiece_model.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <optional>

#include "memory/base/status_macros.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

constexpr size_t kMaxPieces = 1 << 22;
// Trained pieces have at most 16 characters unless told otherwise; splitting one up costs the
// square of its length.
constexpr size_t kMaxPieceBytes = 512;

// Walks through the fields of one message. After an error Next returns false.
class ProtoReader {
 public:
  explicit ProtoReader(std::string_view bytes) : rest_(bytes) {}

  bool Next() {
    if (rest_.empty() || failed_) return false;
    uint64_t tag = 0;
    if (!Varint(&tag)) return false;
    field_ = tag >> 3;
    wire_type_ = static_cast<int>(tag & 7);
    if (field_ == 0) return Fail();
    uint64_t length = 0;
    switch (wire_type_) {
      case kVarint:
        return Varint(&number_);
      case kFixed64:
        return Take(8);
      case kBytes:
        return Varint(&length) && Take(length);
      case kFixed32:
        return Take(4);
      default:
        return Fail();  // groups are not used in this format
    }
  }

  bool failed() const { return failed_; }
  uint64_t field() const { return field_; }

  // The value of the field, or nothing if it is of another type (`failed` is true then).
  std::optional<uint64_t> Number() {
    return Expect(kVarint) ? std::optional(number_) : std::nullopt;
  }
  std::optional<std::string_view> Bytes() {
    return Expect(kBytes) ? std::optional(value_) : std::nullopt;
  }
  std::optional<float> Float() {
    if (!Expect(kFixed32)) return std::nullopt;
    uint32_t bits = 0;
    for (int i = 3; i >= 0; --i) bits = bits << 8 | static_cast<unsigned char>(value_[i]);
    return std::bit_cast<float>(bits);
  }

 private:
  enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  bool Fail() {
    failed_ = true;
    return false;
  }

  bool Expect(WireType type) { return wire_type_ == type || Fail(); }

  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return Fail();
      const auto byte = static_cast<unsigned char>(rest_[0]);
      rest_.remove_prefix(1);
      *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return Fail();
  }

  bool Take(uint64_t size) {
    if (size > rest_.size()) return Fail();
    value_ = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
  uint64_t field_ = 0;
  int wire_type_ = 0;
  uint64_t number_ = 0;
  std::string_view value_;
  bool failed_ = false;
};

absl::Status Broken(std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("{} is broken", what));
}

absl::StatusOr<SentencePieceModel::Piece> ReadPiece(std::string_view bytes, size_t id) {
  SentencePieceModel::Piece piece;
  ProtoReader reader(bytes);
  while (reader.Next()) {
    switch (reader.field()) {
      case 1:
        piece.text = reader.Bytes().value_or("");
        break;
      case 2:
        piece.score = reader.Float().value_or(0);
        break;
      case 3: {
        const uint64_t type = reader.Number().value_or(0);
        if (type < 1 || type > 6) return Broken(fmt::format("the type of piece {}", id));
        piece.type = static_cast<SentencePieceModel::PieceType>(type);
        break;
      }
      default:
        break;
    }
  }
  if (reader.failed() || piece.text.empty() || piece.text.size() > kMaxPieceBytes ||
      !IsValidUtf8(piece.text) || !std::isfinite(piece.score)) {
    return Broken(fmt::format("piece {}", id));
  }
  return piece;
}

absl::Status ReadTrainerSpec(std::string_view bytes, SentencePieceModel* model) {
  ProtoReader reader(bytes);
  while (reader.Next()) {
    switch (reader.field()) {
      case 3:
        model->model_type = static_cast<int64_t>(reader.Number().value_or(0));
        break;
      case 24:
        model->treat_whitespace_as_suffix = reader.Number().value_or(0) != 0;
        break;
      case 35:
        model->byte_fallback = reader.Number().value_or(0) != 0;
        break;
      case 46:
        model->bos_piece = reader.Bytes().value_or("");
        break;
      case 47:
        model->eos_piece = reader.Bytes().value_or("");
        break;
      default:
        break;
    }
  }
  return reader.failed() ? Broken("trainer_spec") : absl::OkStatus();
}

// The denormalizer's spec is of the same kind, and only its map would matter.
absl::Status ReadNormalizerSpec(std::string_view bytes, bool denormalizer,
                                SentencePieceModel* model) {
  ProtoReader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 2) {
      model->has_character_map |= !reader.Bytes().value_or("").empty();
    } else if (reader.field() >= 3 && reader.field() <= 5) {
      const bool value = reader.Number().value_or(0) != 0;
      if (denormalizer) continue;
      if (reader.field() == 3) model->add_dummy_prefix = value;
      if (reader.field() == 4) model->remove_extra_whitespaces = value;
      if (reader.field() == 5) model->escape_whitespaces = value;
    }
  }
  return reader.failed() ? Broken("normalizer_spec") : absl::OkStatus();
}

}  // namespace

absl::StatusOr<SentencePieceModel> ParseSentencePieceProto(std::string_view bytes) {
  SentencePieceModel model;
  ProtoReader reader(bytes);
  while (reader.Next()) {
    const uint64_t field = reader.field();
    if (field < 1 || field > 5 || field == 4) continue;  // 4: self-test data
    const std::optional<std::string_view> message = reader.Bytes();
    if (!message.has_value()) break;
    switch (field) {
      case 1: {
        if (model.pieces.size() == kMaxPieces) {
          return absl::InvalidArgumentError(fmt::format("more than {} pieces", kMaxPieces));
        }
        LORAD_ASSIGN_OR_RETURN(auto piece, ReadPiece(*message, model.pieces.size()));
        model.pieces.push_back(std::move(piece));
        break;
      }
      case 2:
        LORAD_RETURN_IF_ERROR(ReadTrainerSpec(*message, &model));
        break;
      case 3:
        LORAD_RETURN_IF_ERROR(ReadNormalizerSpec(*message, false, &model));
        break;
      case 5:
        LORAD_RETURN_IF_ERROR(ReadNormalizerSpec(*message, true, &model));
        break;
    }
  }
  if (reader.failed()) return Broken("the protobuf message");
  if (model.pieces.empty()) return absl::InvalidArgumentError("no pieces");
  return model;
}

}  // namespace lorad

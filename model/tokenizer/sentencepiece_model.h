// The fields of a SentencePiece model file (a protobuf ModelProto) that encoding depends on. Pure
// functions; the bytes are hostile input.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace lorad {

struct SentencePieceModel {
  enum PieceType {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;  // well-formed UTF-8, not empty
    float score = 0;   // finite
    PieceType type = kNormal;
  };
  enum ModelType { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };

  std::vector<Piece> pieces;  // [vocabulary], by id
  int64_t model_type = kUnigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  std::string bos_piece = "<s>", eos_piece = "</s>";
  bool has_character_map = false;  // normalizes by a precompiled map
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// InvalidArgument for what is no such file. Fields of no interest are passed over.
absl::StatusOr<SentencePieceModel> ParseSentencePieceProto(std::string_view bytes);

}  // namespace lorad

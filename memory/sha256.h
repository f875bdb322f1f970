// Sha256: the hash of bytes that arrive in pieces. One thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace lorad {

class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept = default;
  Sha256& operator=(Sha256&&) noexcept = default;

  void Update(std::string_view bytes);
  // Lower-case hexadecimal, 64 characters.  REQUIRES: called once, last.
  std::string Finish();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

// Whether `text` looks as Finish writes it.
bool IsSha256(std::string_view text);

}  // namespace lorad

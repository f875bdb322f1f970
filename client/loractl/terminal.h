// Output for people: colours that vanish when the output is no terminal, tables, bars, and units.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace lorad::loractl {

enum class Color { kNone, kRed, kGreen, kYellow, kBlue, kMagenta, kCyan, kDim, kBold };

// The n-th of a cycle of well-distinguishable colours.
Color NthColor(size_t n);

class Terminal {
 public:
  Terminal() = default;
  // `width`: columns; 0 asks the terminal, and is 80 without one.
  Terminal(std::ostream* out, std::ostream* err, bool interactive, int width = 0);

  std::ostream& out() const { return *out_; }
  std::ostream& err() const { return *err_; }
  bool interactive() const { return interactive_; }
  int width() const { return width_; }
  // `text` in a colour; as it is where colours are off (no terminal, or NO_COLOR is set).
  std::string Paint(Color color, std::string_view text) const;
  // Back to the top left of an empty screen; nothing without a terminal.
  void Clear() const;

 private:
  std::ostream* out_ = nullptr;
  std::ostream* err_ = nullptr;
  bool interactive_ = false;
  bool color_ = false;
  int width_ = 80;
};

// Columns as wide as their widest cell; the first row is the heading. Columns in `right` are
// aligned right.
class Table {
 public:
  explicit Table(std::vector<std::string> heading) : rows_{std::move(heading)} {}
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  bool empty() const { return rows_.size() == 1; }
  std::string Text(const Terminal& terminal, const std::vector<size_t>& right = {}) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// One part of a bar.
struct Share {
  int64_t amount;
  std::string_view glyph;  // one column wide
  Color color;
};
// `width` columns shared out by amount; a part that is not zero has at least one column where there
// is room.
std::string Bar(const Terminal& terminal, const std::vector<Share>& shares, int width);

double Seconds(const google::protobuf::Duration& duration);
std::string Millis(const google::protobuf::Duration& duration);  // "12.3 ms"
std::string Bytes(int64_t bytes);                                // "1.5 MiB"
std::string Count(double count);                                 // "1.2 M"
std::string Ago(const google::protobuf::Timestamp& time);        // "3 min ago"
std::string Join(const std::vector<std::string>& parts, std::string_view separator);
// "adapters/foo" -> "foo", empty -> "base".
std::string ShortName(std::string_view adapter);
// Invisible bytes made visible: "\n" for a line feed, "\xff" for what is not printable ASCII or
// UTF-8's upper half.
std::string Visible(std::string_view bytes);
// The inverse, for command-line options: \n \t \r \\ \xHH.
std::string Unescape(std::string_view text);

}  // namespace lorad::loractl

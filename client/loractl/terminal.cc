#include "client/loractl/terminal.h"

#include <fmt/format.h>
#include <google/protobuf/util/time_util.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>
#include <utility>

namespace lorad::loractl {
namespace {

std::string_view Code(Color color) {
  switch (color) {
    case Color::kRed:
      return "31";
    case Color::kGreen:
      return "32";
    case Color::kYellow:
      return "33";
    case Color::kBlue:
      return "34";
    case Color::kMagenta:
      return "35";
    case Color::kCyan:
      return "36";
    case Color::kDim:
      return "2";
    case Color::kBold:
      return "1";
    case Color::kNone:
      break;
  }
  return "0";
}

// Columns of UTF-8 text, every code point counted as one.
size_t Columns(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Columns of a bar for each amount: in proportion, rounded so that the sum is `width`. A part that
// is not zero but would vanish takes one column from the widest part.
std::vector<int64_t> Apportion(const std::vector<Share>& shares, int width) {
  int64_t total = 0;
  for (const Share& share : shares) total += share.amount;
  std::vector<int64_t> columns(shares.size(), 0);
  if (total == 0) return columns;
  std::vector<std::pair<int64_t, size_t>> remainders;
  int64_t left = width;
  for (size_t i = 0; i < shares.size(); ++i) {
    columns[i] = shares[i].amount * width / total;
    left -= columns[i];
    remainders.emplace_back(shares[i].amount * width % total, i);
  }
  std::sort(remainders.begin(), remainders.end(), std::greater<>());
  for (int64_t k = 0; k < left; ++k) ++columns[remainders[static_cast<size_t>(k)].second];
  for (size_t i = 0; i < shares.size(); ++i) {
    const auto widest = std::max_element(columns.begin(), columns.end());
    if (shares[i].amount > 0 && columns[i] == 0 && *widest > 1) {
      --*widest;
      ++columns[i];
    }
  }
  return columns;
}

}  // namespace

Color NthColor(size_t n) {
  constexpr std::array kCycle = {Color::kCyan,  Color::kMagenta, Color::kYellow,
                                 Color::kGreen, Color::kBlue,    Color::kRed};
  return kCycle[n % kCycle.size()];
}

Terminal::Terminal(std::ostream* out, std::ostream* err, bool interactive, int width)
    : out_(out), err_(err), interactive_(interactive) {
  color_ = interactive && std::getenv("NO_COLOR") == nullptr;
  winsize size{};
  if (width > 0) {
    width_ = width;
  } else if (interactive && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) {
    width_ = size.ws_col;
  }
}

std::string Terminal::Paint(Color color, std::string_view text) const {
  if (!color_ || color == Color::kNone) return std::string(text);
  return fmt::format("\x1b[{}m{}\x1b[0m", Code(color), text);
}

void Terminal::Clear() const {
  if (interactive_) *out_ << "\x1b[H\x1b[J";
}

std::string Table::Text(const Terminal& terminal, const std::vector<size_t>& right) const {
  std::vector<size_t> widths(rows_[0].size(), 0);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < widths.size(); ++i) widths[i] = std::max(widths[i], Columns(row[i]));
  }
  std::string out;
  for (size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string padding(widths[i] - Columns(rows_[r][i]), ' ');
      const bool to_right = std::find(right.begin(), right.end(), i) != right.end();
      line += to_right ? padding + rows_[r][i] : rows_[r][i] + padding;
      if (i + 1 < widths.size()) line += "  ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += (r == 0 ? terminal.Paint(Color::kDim, line) : line) + "\n";
  }
  return out;
}

std::string Bar(const Terminal& terminal, const std::vector<Share>& shares, int width) {
  const std::vector<int64_t> columns = Apportion(shares, width);
  std::string out;
  for (size_t i = 0; i < shares.size(); ++i) {
    std::string part;
    for (int64_t c = 0; c < columns[i]; ++c) part += shares[i].glyph;
    if (!part.empty()) out += terminal.Paint(shares[i].color, part);
  }
  return out;
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

std::string Millis(const google::protobuf::Duration& duration) {
  const double ms = Seconds(duration) * 1000;
  return ms < 10000 ? fmt::format("{:.1f} ms", ms) : fmt::format("{:.1f} s", ms / 1000);
}

std::string Bytes(int64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string Count(double count) {
  if (count < 10000) return fmt::format("{:.0f}", count);
  if (count < 1e6) return fmt::format("{:.1f} k", count / 1e3);
  if (count < 1e9) return fmt::format("{:.2f} M", count / 1e6);
  return fmt::format("{:.2f} G", count / 1e9);
}

std::string Ago(const google::protobuf::Timestamp& time) {
  using google::protobuf::util::TimeUtil;
  if (time.seconds() == 0) return "never";
  const int64_t s = std::max<int64_t>(0, TimeUtil::GetCurrentTime().seconds() - time.seconds());
  if (s < 60) return fmt::format("{} s ago", s);
  if (s < 3600) return fmt::format("{} min ago", s / 60);
  if (s < 2 * 86400) return fmt::format("{} h ago", s / 3600);
  return fmt::format("{} d ago", s / 86400);
}

std::string Join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (const std::string& part : parts) {
    if (!out.empty()) out += separator;
    out += part;
  }
  return out;
}

std::string ShortName(std::string_view adapter) {
  if (adapter.empty()) return "base";
  constexpr std::string_view kPrefix = "adapters/";
  if (adapter.substr(0, kPrefix.size()) == kPrefix) adapter.remove_prefix(kPrefix.size());
  return std::string(adapter);
}

std::string Visible(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (u < 0x20 || u == 0x7F) {
      out += fmt::format("\\x{:02x}", u);
    } else {
      out += c;
    }
  }
  return out;
}

std::string Unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    switch (const char c = text[++i]; c) {
      case 'n':
        out += '\n';
        break;
      case 't':
        out += '\t';
        break;
      case 'r':
        out += '\r';
        break;
      case '\\':
        out += '\\';
        break;
      case 'x':
        if (i + 2 < text.size()) {
          out += static_cast<char>(
              std::strtol(std::string(text.substr(i + 1, 2)).c_str(), nullptr, 16));
          i += 2;
          break;
        }
        [[fallthrough]];
      default:
        out += '\\';
        out += c;
    }
  }
  return out;
}

}  // namespace lorad::loractl

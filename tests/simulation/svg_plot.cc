#include "tests/simulation/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

namespace lorad::sim {
namespace {

constexpr double kWidth = 720, kHeight = 400;
constexpr double kLeft = 70, kRight = 160, kTop = 36, kBottom = 48;
// Colours that differ in brightness too (Okabe and Ito).
constexpr const char* kColours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                    "#e69f00", "#56b4e9", "#000000", "#b0a030"};

std::string Escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

// One axis: from values to where they are drawn.
class Axis {
 public:
  Axis(bool logarithmic, double begin, double end)
      : logarithmic_(logarithmic), begin_(begin), end_(end) {}

  bool Shows(double value) const { return std::isfinite(value) && (!logarithmic_ || value > 0); }
  void Include(double value) {
    low_ = std::min(low_, Scaled(value));
    high_ = std::max(high_, Scaled(value));
  }
  // Room for all of it, from 0 where there is no logarithm.
  void Settle() {
    if (low_ > high_) low_ = high_ = 0;
    if (!logarithmic_) low_ = std::min(low_, 0.0);
    if (high_ == low_) high_ = low_ + 1;
    if (!logarithmic_) return;
    low_ = std::floor(low_);
    high_ = std::ceil(high_);
  }
  double Place(double value) const {
    return begin_ + (Scaled(value) - low_) / (high_ - low_) * (end_ - begin_);
  }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    if (logarithmic_) {
      for (double power = low_; power <= high_ + 1e-9; ++power)
        ticks.push_back(std::pow(10, power));
      return ticks;
    }
    const double rough = (high_ - low_) / 5;
    const double magnitude = std::pow(10, std::floor(std::log10(rough)));
    double step = magnitude;
    for (const double factor : {2.0, 5.0, 10.0}) {
      if (step < rough) step = factor * magnitude;
    }
    for (double i = std::ceil(low_ / step); i * step <= high_ * (1 + 1e-9); ++i) {
      ticks.push_back(i * step);
    }
    return ticks;
  }

 private:
  double Scaled(double value) const { return logarithmic_ ? std::log10(value) : value; }

  const bool logarithmic_;
  const double begin_, end_;
  double low_ = std::numeric_limits<double>::infinity();
  double high_ = -std::numeric_limits<double>::infinity();
};

std::string Text(double x, double y, const char* anchor, std::string_view text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     Escaped(text));
}

std::string Line(double x1, double y1, double x2, double y2, const char* colour) {
  return fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1, y1, x2,
      y2, colour);
}

std::string Frame(const Plot& plot, const Axis& x, const Axis& y) {
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
      "viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      kWidth, kHeight);
  const double bottom = kHeight - kBottom, right = kWidth - kRight;
  svg += Text(kLeft, 20, "start", plot.title);
  for (const double tick : y.Ticks()) {
    svg += Line(kLeft, y.Place(tick), right, y.Place(tick), "#dddddd");
    svg += Text(kLeft - 6, y.Place(tick) + 4, "end", fmt::format("{:g}", tick));
  }
  for (const double tick : x.Ticks()) {
    svg += Line(x.Place(tick), bottom, x.Place(tick), bottom + 4, "#555555");
    svg += Text(x.Place(tick), bottom + 18, "middle", fmt::format("{:g}", tick));
  }
  svg += Line(kLeft, bottom, right, bottom, "#555555");
  svg += Line(kLeft, kTop, kLeft, bottom, "#555555");
  svg += Text((kLeft + right) / 2, kHeight - 10, "middle", plot.x_label);
  svg += fmt::format(
      "<text transform=\"translate(16 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
      (kTop + bottom) / 2, Escaped(plot.y_label));
  return svg;
}

std::string Drawn(const Curve& curve, size_t number, const Axis& x, const Axis& y) {
  const char* colour = kColours[number % std::size(kColours)];
  std::string points, dots;
  for (const auto& [px, py] : curve.points) {
    if (!x.Shows(px) || !y.Shows(py)) continue;
    points += fmt::format("{:.1f},{:.1f} ", x.Place(px), y.Place(py));
    if (curve.points.size() > 40) continue;
    dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n", x.Place(px),
                        y.Place(py), colour);
  }
  const double place = kTop + 10 + 18 * static_cast<double>(number);
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n",
                     points, colour) +
         dots + Line(kWidth - kRight + 12, place - 4, kWidth - kRight + 30, place - 4, colour) +
         Text(kWidth - kRight + 36, place, "start", curve.name);
}

}  // namespace

std::string ToSvg(const Plot& plot) {
  Axis x(plot.log_x, kLeft, kWidth - kRight), y(plot.log_y, kHeight - kBottom, kTop);
  for (const Curve& curve : plot.curves) {
    for (const auto& [px, py] : curve.points) {
      if (!x.Shows(px) || !y.Shows(py)) continue;
      x.Include(px);
      y.Include(py);
    }
  }
  x.Settle();
  y.Settle();
  std::string svg = Frame(plot, x, y);
  for (size_t i = 0; i < plot.curves.size(); ++i) svg += Drawn(plot.curves[i], i, x, y);
  return svg + "</svg>\n";
}

}  // namespace lorad::sim

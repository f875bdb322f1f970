// SvgPlot: curves as an SVG picture that a browser or a Markdown page shows. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace lorad::sim {

struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;  // by x; those that are no numbers are left out
};

struct Plot {
  std::string title, x_label, y_label;
  std::vector<Curve> curves;
  bool log_x = false, log_y = false;  // then what is not positive is left out
};

std::string ToSvg(const Plot& plot);

}  // namespace lorad::sim

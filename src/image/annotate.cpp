#include "image/annotate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "image/font.h"

namespace fovea {
namespace {

struct Color {
  std::uint8_t red, green, blue;
};
constexpr Color kBlack{0, 0, 0};
constexpr Color kWhite{255, 255, 255};

// Pixels [x_begin, x_end) x [y_begin, y_end).
struct Rect {
  int x_begin, y_begin, x_end, y_end;
  bool overlaps(const Rect& other) const {
    return x_begin < other.x_end && other.x_begin < x_end && y_begin < other.y_end &&
           other.y_begin < y_end;
  }
};

// Strong, mutually distinct hues first; beyond them hues a golden angle apart.
Color color_of(std::size_t index) {
  constexpr Color kFirst[] = {{255, 59, 48},  {52, 199, 89}, {10, 132, 255}, {255, 204, 0},
                              {191, 90, 242}, {0, 199, 190}, {255, 149, 0},  {255, 100, 170}};
  if (index < std::size(kFirst)) return kFirst[index];
  const double hue = std::fmod(static_cast<double>(index) * 0.618033988749895, 1.0) * 6;
  const auto channel = [&](double offset) {
    const double k = std::fmod(offset + hue, 6.0);
    const double dip = std::clamp(std::min(k, 4 - k), 0.0, 1.0);
    return static_cast<std::uint8_t>(240 - 190 * dip);
  };
  return {channel(5), channel(3), channel(1)};
}

Color text_color_on(Color plate) {
  const int luminance = 299 * plate.red + 587 * plate.green + 114 * plate.blue;
  return luminance > 125'000 ? kBlack : kWhite;
}

class Canvas {
 public:
  explicit Canvas(Image& image) : image_(image) {}

  // opacity in [0, 1]
  void blend(int x, int y, Color color, double opacity) {
    if (x < 0 || y < 0 || x >= image_.width || y >= image_.height) return;
    std::uint8_t* pixel = image_.rgb.data() + 3 * (static_cast<std::size_t>(y) *
                                                       static_cast<std::size_t>(image_.width) +
                                                   static_cast<std::size_t>(x));
    const std::uint8_t channels[3] = {color.red, color.green, color.blue};
    for (int c = 0; c < 3; ++c) {
      pixel[c] =
          static_cast<std::uint8_t>(std::lround(pixel[c] + opacity * (channels[c] - pixel[c])));
    }
  }

  void fill(const Rect& rect, Color color, double opacity = 1) {
    for (int y = std::max(rect.y_begin, 0); y < std::min(rect.y_end, image_.height); ++y) {
      for (int x = std::max(rect.x_begin, 0); x < std::min(rect.x_end, image_.width); ++x) {
        blend(x, y, color, opacity);
      }
    }
  }

  // The border of `rect`, `thickness` wide, inside it. Sides do not overlap, so that opacity is
  // even.
  void frame(const Rect& rect, int thickness, Color color, double opacity = 1) {
    const int top = std::min(rect.y_begin + thickness, rect.y_end);
    const int bottom = std::max(rect.y_end - thickness, top);
    const int left = std::min(rect.x_begin + thickness, rect.x_end);
    const int right = std::max(rect.x_end - thickness, left);
    fill({rect.x_begin, rect.y_begin, rect.x_end, top}, color, opacity);
    fill({rect.x_begin, bottom, rect.x_end, rect.y_end}, color, opacity);
    fill({rect.x_begin, top, left, bottom}, color, opacity);
    fill({right, top, rect.x_end, bottom}, color, opacity);
  }

  // A filled circle with a soft edge; centre and radius in pixels.
  void disc(double center_x, double center_y, double radius, Color color, double opacity = 1) {
    const int reach = static_cast<int>(std::ceil(radius)) + 1;
    const int x0 = static_cast<int>(std::floor(center_x));
    const int y0 = static_cast<int>(std::floor(center_y));
    for (int y = y0 - reach; y <= y0 + reach; ++y) {
      for (int x = x0 - reach; x <= x0 + reach; ++x) {
        const double distance = std::hypot(x + 0.5 - center_x, y + 0.5 - center_y);
        const double cover = std::clamp(radius + 0.5 - distance, 0.0, 1.0);
        if (cover > 0) blend(x, y, color, cover * opacity);
      }
    }
  }

  void text(int x, int y, int scale, const std::u32string& characters, Color color) {
    for (const char32_t character : characters) {
      const Glyph glyph = glyph_of(character);
      for (int row = 0; row < kGlyphHeight; ++row) {
        for (int column = 0; column < kGlyphWidth; ++column) {
          if ((glyph[static_cast<std::size_t>(row)] >> (kGlyphWidth - 1 - column) & 1) == 0)
            continue;
          const int left = x + column * scale;
          const int top = y + row * scale;
          fill({left, top, left + scale, top + scale}, color);
        }
      }
      x += (kGlyphWidth + 1) * scale;
    }
  }

 private:
  Image& image_;
};

// Draws everything in three layers, so that no line runs through a label: lines, points, plates.
class Annotator {
 public:
  explicit Annotator(Image& image)
      : image_(image),
        canvas_(image),
        line_width_(std::max(
            2, static_cast<int>(std::lround(std::min(image.width, image.height) / 220.0)))),
        text_scale_(std::max(
            1, static_cast<int>(std::lround(std::min(image.width, image.height) / 300.0)))) {}

  void box(const BoxMark& mark) {
    const Color color = next_color(mark.label);
    Rect rect{pixel(mark.x_min, image_.width), pixel(mark.y_min, image_.height),
              pixel(mark.x_max, image_.width), pixel(mark.y_max, image_.height)};
    if (rect.x_end < rect.x_begin) std::swap(rect.x_begin, rect.x_end);
    if (rect.y_end < rect.y_begin) std::swap(rect.y_begin, rect.y_end);
    // A box without area is still visible.
    rect.x_end = std::max(rect.x_end, rect.x_begin + line_width_);
    rect.y_end = std::max(rect.y_end, rect.y_begin + line_width_);
    const int shade = std::max(1, line_width_ / 2);
    canvas_.frame(
        {rect.x_begin - shade, rect.y_begin - shade, rect.x_end + shade, rect.y_end + shade}, shade,
        kBlack, 0.45);
    canvas_.frame(rect, line_width_, color);
    labels_.push_back({rect, color, characters_of(mark.label)});
  }

  void point(const PointMark& mark) {
    const Color color = next_color(mark.label);
    // Kept near the picture, so that a wild coordinate does not overflow.
    const double x = std::clamp(mark.x, -1.0, 2.0) * image_.width;
    const double y = std::clamp(mark.y, -1.0, 2.0) * image_.height;
    const double radius = 2.2 * line_width_;
    canvas_.disc(x, y, radius + 0.9 * line_width_ + 1, kBlack, 0.45);
    canvas_.disc(x, y, radius + 0.9 * line_width_, kWhite);
    canvas_.disc(x, y, radius, color);
    const int reach = static_cast<int>(radius + 1.5 * line_width_) + 1;
    const Rect around{static_cast<int>(x) - reach, static_cast<int>(y) - reach,
                      static_cast<int>(x) + reach, static_cast<int>(y) + reach};
    labels_.push_back({around, color, characters_of(mark.label)});
  }

  void plates() {
    for (Label& label : labels_) {
      if (!label.text.empty()) plate(label);
    }
  }

 private:
  struct Label {
    Rect of;  // what it belongs to
    Color color;
    std::u32string text;
  };

  static int pixel(double coordinate, int size) {
    return static_cast<int>(std::lround(std::clamp(coordinate, -1.0, 2.0) * size));
  }

  // The same label has the same colour; marks without one each get their own.
  Color next_color(std::string_view label) {
    if (!label.empty()) {
      const auto known = std::find_if(colors_.begin(), colors_.end(),
                                      [&](const auto& entry) { return entry.first == label; });
      if (known != colors_.end()) return known->second;
    }
    const Color color = color_of(colors_.size());
    colors_.emplace_back(label, color);
    return color;
  }

  // Shortens text that would not fit the picture's width.
  void shorten(std::u32string& text, int padding) const {
    const int room = (image_.width - 2 * padding) / ((kGlyphWidth + 1) * text_scale_);
    const auto max_length = static_cast<std::size_t>(std::max(room, 0));
    if (text.size() <= max_length) return;
    text.resize(max_length);
    for (std::size_t i = 0; i < std::min<std::size_t>(2, max_length); ++i) {
      text[max_length - 1 - i] = U'.';
    }
  }

  // On the mark's top edge if there is room, else inside or below it: the first place that hides no
  // other label.
  Rect place(const Rect& of, int width, int height) const {
    const int x = std::clamp(of.x_begin, 0, std::max(0, image_.width - width));
    const int below_top = of.y_begin + line_width_;
    const int tries[] = {of.y_begin - height, below_top, of.y_end, below_top + height,
                         below_top + 2 * height};
    Rect first{};
    bool has_first = false;
    for (const int y_wanted : tries) {
      const int y = std::clamp(y_wanted, 0, std::max(0, image_.height - height));
      const Rect rect{x, y, x + width, y + height};
      if (y != y_wanted && y_wanted == tries[0]) continue;  // would cover the mark from outside
      if (!has_first) first = rect;
      has_first = true;
      const bool is_free = std::none_of(plates_.begin(), plates_.end(),
                                        [&](const Rect& other) { return other.overlaps(rect); });
      if (is_free) return rect;
    }
    return first;
  }

  void plate(Label& label) {
    const int padding = 2 * text_scale_;
    shorten(label.text, padding);
    if (label.text.empty()) return;
    const int text_width =
        (static_cast<int>(label.text.size()) * (kGlyphWidth + 1) - 1) * text_scale_;
    // The accent rows serve as padding at the top.
    const Rect rect = place(label.of, text_width + 2 * padding + text_scale_,
                            kGlyphHeight * text_scale_ + padding);
    plates_.push_back(rect);
    canvas_.fill(rect, label.color);
    canvas_.text(rect.x_begin + padding + text_scale_ / 2, rect.y_begin + padding / 2, text_scale_,
                 label.text, text_color_on(label.color));
  }

  Image& image_;
  Canvas canvas_;
  int line_width_;
  int text_scale_;  // pixels per pixel of the font
  std::vector<std::pair<std::string, Color>> colors_;
  std::vector<Label> labels_;
  std::vector<Rect> plates_;
};

bool is_finite(const BoxMark& mark) {
  return std::isfinite(mark.x_min) && std::isfinite(mark.y_min) && std::isfinite(mark.x_max) &&
         std::isfinite(mark.y_max);
}

}  // namespace

void annotate(Image& image, std::span<const BoxMark> boxes, std::span<const PointMark> points) {
  if (image.width <= 0 || image.height <= 0) return;
  Annotator annotator(image);
  for (const BoxMark& mark : boxes) {
    if (is_finite(mark)) annotator.box(mark);
  }
  for (const PointMark& mark : points) {
    if (std::isfinite(mark.x) && std::isfinite(mark.y)) annotator.point(mark);
  }
  annotator.plates();
}

}  // namespace fovea

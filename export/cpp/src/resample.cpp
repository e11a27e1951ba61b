#include "resample.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace g2sd {
namespace {

constexpr std::int64_t one = std::int64_t{1} << 22;  // NOLINT(bugprone-signed-bitwise)

/// The source pixels that make one target pixel, and their weights in units of 2^-22.
struct Taps {
    std::size_t first = 0;
    std::vector<std::int32_t> weights;
};

double bilinear(double x) {
    return std::max(0.0, 1.0 - std::abs(x));
}

double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::abs(x);
    if (x < 1) {
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    }
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

std::int32_t fixed_point(double weight) {
    const double scaled = weight * static_cast<double>(one);
    return static_cast<std::int32_t>(weight < 0 ? scaled - 0.5
                                                : scaled + 0.5);  // NOLINT(bugprone-incorrect-roundings): Pillow's
}

/// The nearest whole number of at least 0; halves go up, where Pillow's do.
std::size_t rounded(double value) {
    return static_cast<std::size_t>(std::max(value + 0.5, 0.0));  // NOLINT(bugprone-incorrect-roundings)
}

Taps taps_at(std::size_t target, double scale, std::size_t source_size, Filter filter) {
    const double stretch = std::max(scale, 1.0);
    const double support = (filter == Filter::bicubic ? 2.0 : 1.0) * stretch;
    const double centre = (static_cast<double>(target) + 0.5) * scale;
    const auto first = rounded(centre - support);
    const auto last = std::min(rounded(centre + support), source_size);
    const double inverse = 1.0 / stretch;
    std::vector<double> weights;
    double sum = 0;
    for (std::size_t source = first; source < last; ++source) {
        const double distance = (static_cast<double>(source) - centre + 0.5) * inverse;
        weights.push_back(filter == Filter::bicubic ? bicubic(distance) : bilinear(distance));
        sum += weights.back();
    }
    Taps taps{first, {}};
    for (const double weight : weights) {
        taps.weights.push_back(fixed_point(sum == 0 ? weight : weight / sum));
    }
    return taps;
}

std::vector<Taps> all_taps(std::size_t source_size, std::size_t target_size, Filter filter) {
    const double scale = static_cast<double>(source_size) / static_cast<double>(target_size);
    std::vector<Taps> taps;
    taps.reserve(target_size);
    for (std::size_t target = 0; target < target_size; ++target) {
        taps.push_back(taps_at(target, scale, source_size, filter));
    }
    return taps;
}

/// The weighted sum of bytes that lie `stride` apart.
std::uint8_t weighted(const std::uint8_t* source, std::size_t stride, const std::vector<std::int32_t>& weights) {
    std::int64_t sum = one / 2;
    for (const std::int32_t weight : weights) {
        sum += std::int64_t{*source} * weight;
        source += stride;
    }
    const std::int64_t whole = sum >= 0 ? sum / one : 0;
    return static_cast<std::uint8_t>(std::min<std::int64_t>(whole, 255));
}

Image across(const Image& image, std::size_t width, Filter filter) {
    const auto taps = all_taps(image.width, width, filter);
    Image out = blank_image(width, image.height, image.channels);
    for (std::size_t y = 0; y < out.height; ++y) {
        for (std::size_t x = 0; x < width; ++x) {
            for (std::size_t channel = 0; channel < image.channels; ++channel) {
                out.at(x, y)[channel] = weighted(image.at(taps[x].first, y) + channel, image.channels, taps[x].weights);
            }
        }
    }
    return out;
}

Image down(const Image& image, std::size_t height, Filter filter) {
    const auto taps = all_taps(image.height, height, filter);
    const std::size_t row_bytes = image.width * image.channels;
    Image out = blank_image(image.width, height, image.channels);
    for (std::size_t y = 0; y < height; ++y) {
        for (std::size_t index = 0; index < row_bytes; ++index) {
            out.pixels[y * row_bytes + index] =
                weighted(image.at(0, taps[y].first) + index, row_bytes, taps[y].weights);
        }
    }
    return out;
}

}  // namespace

Image resized(const Image& image, std::size_t width, std::size_t height, Filter filter) {
    const Image out = width == image.width ? image : across(image, width, filter);
    return height == image.height ? out : down(out, height, filter);
}

}  // namespace g2sd

#include "preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "error.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

constexpr std::size_t max_resized_pixels = 50'000'000;  // as in Python: a strip would be enlarged to gigabytes

std::size_t count_in(const Json& values, std::string_view key) {
    const std::int64_t value = values.at(key).integer();
    if (value < 1 || value > 1'000'000) {
        throw UserError(concat("preprocessing: ", key, " is ", value, "; it must be at least 1"));
    }
    return static_cast<std::size_t>(value);
}

std::vector<float> numbers_in(const Json& values, std::string_view key, std::size_t num_channels) {
    std::vector<float> numbers;
    for (const Json& value : values.at(key).array()) {
        numbers.push_back(static_cast<float>(value.number()));
    }
    if (numbers.size() != num_channels ||
        !std::all_of(numbers.begin(), numbers.end(), [](float number) { return std::isfinite(number); })) {
        throw UserError(
            concat("preprocessing: ", key, " must hold ", num_channels, " finite numbers, one per channel"));
    }
    return numbers;
}

Filter filter_from(const std::string& name) {
    if (name != "bicubic" && name != "bilinear") {
        throw UserError("preprocessing: interpolation is " + name + "; it must be bicubic or bilinear");
    }
    return name == "bicubic" ? Filter::bicubic : Filter::bilinear;
}

/// ITU-R 601 luma with Pillow's weights in units of 2^-16.
std::uint8_t luma(const std::uint8_t* rgb) {
    return static_cast<std::uint8_t>((rgb[0] * 19595U + rgb[1] * 38470U + rgb[2] * 7471U + 0x8000U) >> 16U);
}

Image converted(const Image& image, std::size_t channels) {
    if (image.channels == channels) {
        return image;
    }
    Image out = blank_image(image.width, image.height, channels);
    for (std::size_t pixel = 0; pixel < image.width * image.height; ++pixel) {
        const std::uint8_t* from = image.pixels.data() + pixel * image.channels;
        std::fill_n(out.pixels.data() + pixel * channels, channels, channels == 1 ? luma(from) : *from);
    }
    return out;
}

/// `whole number of (wanted * side / short)`, with the division in double precision as Python has it.
std::size_t scaled(std::size_t side, std::size_t short_side, std::size_t wanted) {
    return static_cast<std::size_t>(static_cast<double>(wanted * side) / static_cast<double>(short_side));
}

Image with_short_side(const Image& image, const Preprocessing& pre) {
    const std::size_t short_side = std::min(image.width, image.height);
    if (short_side == pre.resize_px) {
        return image;
    }
    const std::size_t width =
        image.width == short_side ? pre.resize_px : scaled(image.width, short_side, pre.resize_px);
    const std::size_t height =
        image.height == short_side ? pre.resize_px : scaled(image.height, short_side, pre.resize_px);
    if (width * height > max_resized_pixels) {
        throw UserError(concat("the image of ", image.width, " x ", image.height,
                               " pixels is too narrow to be resized to a short side of ", pre.resize_px));
    }
    return resized(image, width, height, pre.interpolation);
}

/// Where a centred window starts; halves go to the even number, as Python rounds them.
std::size_t margin(std::size_t side, std::size_t window) {
    return static_cast<std::size_t>(std::nearbyint(static_cast<double>(side - window) / 2));
}

}  // namespace

Preprocessing preprocessing_from(const Json& values) {
    Preprocessing pre;
    pre.image_px = count_in(values, "image_px");
    pre.resize_px = count_in(values, "resize_px");
    pre.num_channels = count_in(values, "num_channels");
    if (pre.resize_px < pre.image_px || (pre.num_channels != 1 && pre.num_channels != 3)) {
        throw UserError("preprocessing: resize_px must be at least image_px, and num_channels 1 or 3");
    }
    pre.mean = numbers_in(values, "mean", pre.num_channels);
    pre.std = numbers_in(values, "std", pre.num_channels);
    if (*std::min_element(pre.std.begin(), pre.std.end()) <= 0) {
        throw UserError("preprocessing: every std must be above 0");
    }
    pre.interpolation = filter_from(values.at("interpolation").string());
    return pre;
}

ImageBatch fitted(const Image& image, const Preprocessing& pre) {
    const Image small = with_short_side(converted(image, pre.num_channels), pre);
    const std::size_t left = margin(small.width, pre.image_px);
    const std::size_t top = margin(small.height, pre.image_px);
    ImageBatch batch{1, pre.image_px, pre.num_channels, Bytes(pre.image_px * pre.image_px * pre.num_channels)};
    const std::size_t row_bytes = pre.image_px * pre.num_channels;
    for (std::size_t y = 0; y < pre.image_px; ++y) {
        std::memcpy(batch.pixels.data() + y * row_bytes, small.at(left, top + y), row_bytes);
    }
    return batch;
}

}  // namespace g2sd

#include "image_file.hpp"

#include <cctype>
#include <string>
#include <string_view>

#include "error.hpp"
#include "files.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

bool starts_with(const Bytes& file, std::string_view magic) {
    return text_of({file.begin(), file.begin() + static_cast<std::ptrdiff_t>(std::min(file.size(), magic.size()))}) ==
           magic;
}

/// The numbers at the head of a PNM file; comments run from # to the end of the line.
class PnmHeader {
  public:
    explicit PnmHeader(const Bytes& file) : file_(&file) {}

    std::size_t number() {
        skip_blanks();
        std::size_t value = 0;
        const std::size_t start = at_;
        for (; at_ < file_->size() && std::isdigit((*file_)[at_]) != 0; ++at_) {
            value = value * 10 + ((*file_)[at_] - std::size_t{'0'});
            if (value > 1'000'000) {
                throw UserError("a number in its header is above 1000000");
            }
        }
        if (start == at_ || value == 0) {
            throw UserError("its header lacks a number");
        }
        return value;
    }

    /// One blank ends the header.
    std::size_t data_at() const { return at_ + 1; }

  private:
    const Bytes* file_;
    std::size_t at_ = 2;  // after P5 or P6

    void skip_blanks() {
        bool in_comment = false;
        for (; at_ < file_->size(); ++at_) {
            const std::uint8_t letter = (*file_)[at_];
            in_comment = letter == '#' || (in_comment && letter != '\n');
            if (!in_comment && std::isspace(letter) == 0) {
                return;
            }
        }
    }
};

Image raw_image(Bytes file, const RawSize& size, std::size_t channels) {
    const std::size_t wanted = size.width * size.height * channels;
    if (file.size() != wanted) {
        throw UserError(concat("holds ", file.size(), " bytes; ", size.width, " x ", size.height, " pixels of ",
                               channels, " channels are ", wanted));
    }
    return {size.width, size.height, channels, std::move(file)};
}

Image decoded(Bytes file, std::size_t raw_channels, const std::optional<RawSize>& raw) {
    if (raw) {
        return raw_image(std::move(file), *raw, raw_channels);
    }
    if (starts_with(file, "\x89PNG")) {
        return decoded_png(file);
    }
    if (starts_with(file, "P5") || starts_with(file, "P6")) {
        return decoded_pnm(file);
    }
    throw UserError("is no PNG, PGM or PPM; convert it, or name the size of raw pixels with --size WIDTHxHEIGHT");
}

}  // namespace

Image decoded_pnm(const Bytes& file) {
    PnmHeader header(file);
    Image image;
    image.width = header.number();
    image.height = header.number();
    image.channels = starts_with(file, "P6") ? 3 : 1;
    if (const std::size_t largest = header.number(); largest != 255) {
        throw UserError(concat("its largest value is ", largest, "; wanted 255"));
    }
    const std::size_t num_bytes = image.width * image.height * image.channels;
    if (header.data_at() > file.size() || file.size() - header.data_at() < num_bytes) {
        throw UserError("is truncated");
    }
    const auto* start = file.data() + header.data_at();
    image.pixels.assign(start, start + num_bytes);
    return image;
}

Image load_image(const std::filesystem::path& path, std::size_t raw_channels, const std::optional<RawSize>& raw) {
    Bytes file = read_file(path);
    try {
        return decoded(std::move(file), raw_channels, raw);
    } catch (const UserError& error) {
        throw UserError(path.string() + ": " + error.what());
    }
}

}  // namespace g2sd

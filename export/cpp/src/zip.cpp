#include "zip.hpp"

#include <algorithm>
#include <utility>

#include "error.hpp"
#include "inflate.hpp"

namespace g2sd {
namespace {

constexpr std::size_t end_signature = 0x06054b50;
constexpr std::size_t entry_signature = 0x02014b50;
constexpr std::size_t local_signature = 0x04034b50;
constexpr std::size_t end_bytes = 22;
constexpr std::size_t entry_bytes = 46;
constexpr std::size_t local_bytes = 30;
constexpr std::size_t most_comment_bytes = 65535;
constexpr std::uint16_t stored = 0;
constexpr std::uint16_t deflated = 8;

}  // namespace

ZipArchive::ZipArchive(Bytes content) : content_(std::move(content)) {
    const std::size_t end = directory_end();
    std::size_t at = number(end + 16, 4);
    for (std::size_t left = number(end + 10, 2); left > 0; --left) {
        at = read_entry(at);
    }
}

/// Little-endian.
std::size_t ZipArchive::number(std::size_t at, std::size_t num_bytes) const {
    if (at > content_.size() || content_.size() - at < num_bytes) {
        throw UserError("it is a truncated ZIP file");
    }
    std::size_t value = 0;
    for (std::size_t index = num_bytes; index > 0; --index) {
        value = value << 8U | content_[at + index - 1];
    }
    return value;
}

/// Where the record lies that ends every ZIP file; a comment may follow it.
std::size_t ZipArchive::directory_end() const {
    if (content_.size() >= end_bytes) {
        const std::size_t last = content_.size() - end_bytes;
        for (std::size_t back = 0; back <= std::min(last, most_comment_bytes); ++back) {
            if (number(last - back, 4) == end_signature) {
                return last - back;
            }
        }
    }
    throw UserError("it is no ZIP file");
}

/// Note one entry of the directory; where the next one starts.
std::size_t ZipArchive::read_entry(std::size_t at) {
    if (number(at, 4) != entry_signature) {
        throw UserError("its ZIP directory is damaged");
    }
    const std::size_t name_bytes = number(at + 28, 2);
    const std::size_t rest_bytes = number(at + 30, 2) + number(at + 32, 2);
    if (content_.size() - at < entry_bytes + name_bytes) {
        throw UserError("it is a truncated ZIP file");
    }
    const auto* name = content_.data() + at + entry_bytes;
    Member member;
    member.method = static_cast<std::uint16_t>(number(at + 10, 2));
    member.crc = static_cast<std::uint32_t>(number(at + 16, 4));
    member.packed = number(at + 20, 4);
    member.size = number(at + 24, 4);
    member.at = number(at + 42, 4);
    members_.emplace(std::string(name, name + name_bytes), member);
    return at + entry_bytes + name_bytes + rest_bytes;
}

/// Where a member's data start: its local header may hold more than the directory's entry.
std::size_t ZipArchive::data_start(const Member& member) const {
    if (number(member.at, 4) != local_signature) {
        throw UserError("its header is damaged");
    }
    const std::size_t start = member.at + local_bytes + number(member.at + 26, 2) + number(member.at + 28, 2);
    if (start > content_.size() || content_.size() - start < member.packed) {
        throw UserError("it is truncated");
    }
    return start;
}

Bytes ZipArchive::read(const std::string& name) const {
    const auto found = members_.find(name);
    if (found == members_.end()) {
        throw UserError(name + ": the ZIP file does not hold it");
    }
    const Member& member = found->second;
    try {
        const std::uint8_t* data = content_.data() + data_start(member);
        if (member.method != stored && member.method != deflated) {
            throw UserError("it is neither stored nor deflated");
        }
        Bytes out = member.method == stored ? Bytes(data, data + member.packed)
                                            : inflated(data, member.packed, member.size, Deflate::raw);
        if (out.size() != member.size || crc32_of(out.data(), out.size()) != member.crc) {
            throw UserError("its CRC-32 is wrong");
        }
        return out;
    } catch (const UserError& error) {
        throw UserError(name + ": " + error.what());
    }
}

}  // namespace g2sd

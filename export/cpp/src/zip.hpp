#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "bytes.hpp"

namespace g2sd {

/// A ZIP file in memory whose members are stored or deflated, as numpy writes its .npz files. Source: PKWARE
/// APPNOTE 6.3.
class ZipArchive {
  public:
    /// Throws UserError where this is no ZIP file, or one of several volumes or above 4 GiB.
    explicit ZipArchive(Bytes content);

    bool holds(const std::string& name) const { return members_.count(name) > 0; }

    /// A member, its CRC-32 checked. Throws UserError, naming it.
    Bytes read(const std::string& name) const;

  private:
    struct Member {
        std::uint16_t method = 0;
        std::uint32_t crc = 0;
        std::size_t packed = 0;
        std::size_t size = 0;
        std::size_t at = 0;  // of the local header
    };

    std::size_t directory_end() const;
    std::size_t number(std::size_t at, std::size_t num_bytes) const;
    std::size_t read_entry(std::size_t at);
    std::size_t data_start(const Member& member) const;

    Bytes content_;
    std::map<std::string, Member> members_;
};

}  // namespace g2sd

//! Captured packets as a pcapng file (draft-ietf-opsawg-pcapng), readable by Wireshark.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{
    InterfaceStatisticsBlock, InterfaceStatisticsOption,
};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};

use super::protocol::{LinkType, PacketRow, PortRow};
use crate::port::capture::Direction;

/// `if_tsresol`: time stamps count units of 10⁻⁹ seconds.
const NANOSECONDS: u8 = 9;

/// A pcapng file being written: an interface a port, then packets.
pub struct PcapngFile<W: Write> {
    writer: PcapNgWriter<W>,
    /// The interface's index in the file, by port number.
    interfaces: BTreeMap<u16, u32>,
}

impl<W: Write> PcapngFile<W> {
    /// Writes the file's head: one interface for each of `ports`, whose packets are cut to
    /// `snap_length` bytes (0: whole).
    pub fn new(output: W, ports: &[PortRow], snap_length: usize) -> io::Result<Self> {
        // Big-endian, as pcap-file writes the halves of a statistics block's time in that order.
        let section = SectionHeaderBlock {
            endianness: Endianness::Big,
            options: vec![SectionHeaderOption::UserApplication(
                concat!("underpass ", env!("CARGO_PKG_VERSION")).into(),
            )],
            ..SectionHeaderBlock::default()
        };
        let mut writer = PcapNgWriter::with_section_header(output, section).map_err(into_io)?;
        let mut interfaces = BTreeMap::new();
        for (index, port) in (0..).zip(ports) {
            interfaces.insert(port.id, index);
            writer
                .write_pcapng_block(interface(port, snap_length))
                .map_err(into_io)?;
        }
        Ok(Self { writer, interfaces })
    }

    /// Appends a packet; one of a port that [`PcapngFile::new`] was not told of is `InvalidInput`.
    pub fn write(&mut self, packet: &PacketRow) -> io::Result<()> {
        let Some(interface) = self.interfaces.get(&packet.port) else {
            let error = format!("the capture has no port number {}", packet.port);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        };
        // epb_flags, bits 0 and 1: 01 inbound, 10 outbound.
        let direction = match packet.direction {
            Direction::In => 0b01,
            Direction::Out => 0b10,
        };
        let block = EnhancedPacketBlock {
            interface_id: *interface,
            timestamp: Duration::from_nanos(packet.time),
            original_len: u32::try_from(packet.length).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&packet.bytes),
            options: vec![EnhancedPacketOption::Flags(direction)],
        };
        self.writer
            .write_pcapng_block(block)
            .map(drop)
            .map_err(into_io)
    }

    /// Hands what is written so far to the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Ends the file: notes the packets that were missed, of which the ports are not known, on
    /// its first interface.
    pub fn finish(mut self, missed: u64) -> io::Result<()> {
        if !self.interfaces.is_empty() {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let block = InterfaceStatisticsBlock {
                interface_id: 0,
                timestamp: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
                options: vec![InterfaceStatisticsOption::IsbIfDrop(missed)],
            };
            self.writer.write_pcapng_block(block).map_err(into_io)?;
        }
        self.flush()
    }
}

fn interface(port: &PortRow, snap_length: usize) -> InterfaceDescriptionBlock<'static> {
    InterfaceDescriptionBlock {
        linktype: match port.link {
            LinkType::Ethernet => DataLink::ETHERNET,
            LinkType::Ip => DataLink::RAW,
        },
        snaplen: u32::try_from(snap_length).unwrap_or(0),
        options: vec![
            InterfaceDescriptionOption::IfName(port.name.clone().into()),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ],
    }
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}
